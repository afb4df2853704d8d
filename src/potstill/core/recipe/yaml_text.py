"""Reading YAML with limits: what could be read in two ways, or grows when it is read, is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["BadYaml", "read_yaml"]

_MAX_DEPTH = 50
_MOST_NODES = 20_000
"""Limit of the keys and values in a text, where each alias counts as much as what it stands for."""
_INT64 = 1 << 63


class BadYaml(ValueError):
    """What is wrong with a YAML text, as a sentence without its full stop."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without repeated keys, deep nesting, and aliases that grow."""

    depth = 0

    def compose_document(self) -> yaml.Node | None:
        document = super().compose_document()
        _require_small(document)
        return document

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise BadYaml("it is nested too deeply. Remove brackets that are not needed")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # before merge keys are resolved, after which a mapping may hold a key of another that it replaces
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise BadYaml(f"the key {key.value!r} appears a second time in line {line}. Keep one of the two")
            seen.add(str(key.value))
        return node


def _require_small(document: yaml.Node | None) -> None:
    """Raise BadYaml where aliases and merge keys make a text large, or a value a part of itself."""
    sizes: dict[int, int] = {}
    stack: list[tuple[yaml.Node, bool]] = [(document, False)] if document else []
    open_nodes: set[int] = set()
    while stack:
        node, finished = stack.pop()
        mark = id(node)
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            inside = [each for pair in node.value for each in pair]
        if finished:
            open_nodes.discard(mark)
            sizes[mark] = 1 + sum(sizes[id(each)] for each in inside)
            if sizes[mark] > _MOST_NODES:
                raise BadYaml(f"it has more than {_MOST_NODES:,} keys and values, where each alias (*) counts in full")
        elif mark in open_nodes:
            raise BadYaml(f"an anchor in line {node.start_mark.line + 1} holds an alias of itself. Write the value out")
        elif mark not in sizes:
            open_nodes.add(mark)
            stack.append((node, True))
            stack += [(each, False) for each in inside]


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        BadYaml: it is not valid YAML; or it has a key twice, deep nesting, aliases that grow, a number or a date that
            cannot be read, or text with control characters.
    """
    try:
        value = yaml.load(text, _Loader)
    except BadYaml:
        raise
    except yaml.YAMLError as error:
        raise BadYaml(" ".join(str(error).split())[:1000].rstrip(".")) from None
    except RecursionError:
        raise BadYaml("it is nested too deeply. Remove brackets that are not needed") from None
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError):
        raise BadYaml("a number, a date or a tag in it cannot be read. Put quotes around it if it is text") from None
    for leaf in _leaves(value):
        if isinstance(leaf, int):
            if not -_INT64 <= leaf < _INT64:
                raise BadYaml("a number in it needs more than 64 bits. Put quotes around it if it is text")
            continue
        for char in leaf:
            if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"):
                shown = char.encode("unicode_escape").decode("ascii")
                raise BadYaml(f"a text in it has the control character {shown}: {leaf[:60]!r}. Delete it")
    return value


def _leaves(value: Any) -> Iterator[str | int]:
    """The texts and the whole numbers in a value, and its keys."""
    if isinstance(value, str | int):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(key)
            yield from _leaves(each)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _leaves(each)
