"""Reading YAML with limits: what could be read in two ways, or grows when it is read, is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["BadYaml", "read_yaml"]

_MAX_DEPTH = 50
_INT64 = 1 << 63


class BadYaml(ValueError):
    """What is wrong with a YAML text, as a sentence without its full stop."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, merge keys, repeated keys and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise BadYaml(f"line {event.start_mark.line + 1} refers to an anchor (*). Write the value out instead")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise BadYaml("it is nested too deeply. Remove brackets that are not needed")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise BadYaml(f"line {line} has a merge key (<<). Write the keys out instead")
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise BadYaml(f"the key {key.value!r} appears a second time in line {line}. Keep one of the two")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        BadYaml: it is not valid YAML; or it has an alias, a merge key, a key twice, deep nesting, a number or a date
            that cannot be read, or text with control characters.
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
