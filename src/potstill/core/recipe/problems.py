"""What is wrong with a recipe, in its own terms: the key, the nearest key or value, and the line in the YAML text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from potstill.core.words import nearest_hint, printable

__all__ = ["KeyPath", "Problem", "first_problem", "line_of", "sections_of"]

KeyPath = tuple[str | int, ...]


class Problem(Exception):
    """What is wrong at a key, as a sentence."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message if message.endswith("?") else f"{message}.")
        self.path = path


def first_problem(error: ValidationError, kind: type[BaseModel]) -> Problem:
    """The first complaint of pydantic; an unknown key comes first, because it explains a missing one."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path, kinds, tag = _resolve(kind, first["loc"])
    if first["type"] == "union_tag_invalid":
        path += (first["ctx"]["discriminator"].strip("'"),)
    return Problem(path, _message(first, path, kinds, tag))


def _message(error: ErrorDetails, path: KeyPath, kinds: Mapping[str, type[BaseModel]], tag: str) -> str:
    """The complaint about a key of a section; `kinds` are the kinds of the section, of which `tag` was chosen."""
    key, context = ".".join(map(str, path)), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; {_hint_for_key(str(path[-1]), kinds, tag)}"
        case "literal_error":
            given, known = error["input"], _quoted(context["expected"])
            return f"{key}: there is no {printable(repr(given))}; {nearest_hint(given, known)}"
        case "union_tag_invalid":
            given, known = context["tag"], _quoted(context["expected_tags"])
            if _has_key(given, kinds[tag].model_fields[str(path[-2])]):
                return f"{'.'.join(map(str, path[:-1]))}: {_needs_colon(given)}"
            return f"{key}: there is no {printable(repr(given))}; {nearest_hint(given, known)}"
        case "value_error":
            return f"{key}: {context['error']}" if key else str(context["error"])
        case "missing":
            return f"{key} is missing; the key is required"
        case "model_type" | "model_attributes_type" if isinstance(error["input"], str):
            return f"{key}: {_needs_colon(error['input'])}"
        case "less_than_equal" | "less_than" if _is_percent(error["input"], context):
            given = error["input"]
            return f"{key}: {given} is too large; write a fraction, such as {given / 100:g} for {given:g} %"
        case _:
            return f"{key or '(top level)'}: {error['msg']}"


def _needs_colon(given: str) -> str:
    return f"{printable(repr(given))} is text, but the section has keys; write each as a key, a colon and a value"


def _has_key(given: str, field: FieldInfo) -> bool:
    """Whether a text begins with a key of the section that should stand there."""
    return any(word in section.model_fields for word in given.split()[:1] for section in sections_of(field).values())


def _is_percent(given: Any, context: Mapping[str, Any]) -> bool:
    """Whether a number is above a limit that only a fraction has."""
    limit = context.get("le", context.get("lt"))
    return isinstance(given, int | float) and limit is not None and limit <= 1 and 2 < given <= 100


def _hint_for_key(key: str, kinds: Mapping[str, type[BaseModel]], tag: str) -> str:
    others = [other for other, kind in kinds.items() if key in kind.model_fields]
    if others:
        name = _discriminator(kinds[tag], kinds)
        if len(others) > 3:
            return f"{name}: {tag} does not have it"
        return f"it belongs to {name}: {' or '.join(others)}, and this is {name}: {tag}"
    return nearest_hint(key, list(kinds[tag].model_fields), "known keys are")


def _quoted(text: str) -> list[str]:
    """The words in single quotes of a pydantic message."""
    return re.findall(r"'([^']*)'", text)


def sections_of(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Sections that a field may hold, by the value of the discriminator; of a field without one, by an empty name."""
    classes = [c for c in _classes(field.annotation) if isinstance(c, type) and issubclass(c, BaseModel)]
    if len(classes) < 2:
        return dict.fromkeys([""], classes[0]) if classes else {}
    assert isinstance(field.discriminator, str)
    return {get_args(c.model_fields[field.discriminator].annotation)[0]: c for c in classes}


def _classes(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _discriminator(kind: type[BaseModel], kinds: Mapping[str, type[BaseModel]]) -> str:
    """The key whose value chooses between kinds of a section."""
    names = [name for name in kind.model_fields if all(name in other.model_fields for other in kinds.values())]
    return next(
        name for name in names if all(get_args(k.model_fields[name].annotation) == (t,) for t, k in kinds.items())
    )


def _resolve(kind: type[BaseModel], location: KeyPath) -> tuple[KeyPath, dict[str, type[BaseModel]], str]:
    """A location of pydantic as a path of keys, without the tags of choices and "[key]".

    With it come the kinds of the section that the last key is in, and the tag of the chosen one.
    """
    path: list[str | int] = []
    kinds: dict[str, type[BaseModel]] = {"": kind}
    tag = ""
    inner: dict[str, type[BaseModel]] = {}
    for part in location:
        if part in inner and part != "":
            kinds, tag, inner = inner, str(part), {}
        elif part != "[key]":
            if "" in inner:
                kinds, tag = inner, ""
            field = kinds[tag].model_fields.get(str(part))
            inner = sections_of(field) if field else {}
            path.append(part)
    return tuple(path), kinds, tag


def line_of(text: str, path: KeyPath) -> int | None:
    """Line (from 1) in a YAML text of the deepest part of a key path that exists."""
    node = yaml.compose(text)
    line: int | None = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
