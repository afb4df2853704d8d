"""Writes the tables of fields in docs/artifacts.md from the classes in potstill.core.artifacts."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import potstill.core.artifacts as package
from potstill.core.artifacts.base import Artifact, Part

PAGE = Path(__file__).parent / "artifacts.md"
MARK = "<!-- Everything below is made by `make docs` from potstill.core.artifacts. -->\n"
_NAMES = {str: "string", int: "integer", float: "number", bool: "true or false", Any: "any", type(None): "null"}
_FIELD = re.compile(r"^(\w+(?:, \w+)*) {2,}(\S.*)$")


LINES = {"JudgedAnswer": "answers-MODEL.jsonl", "ClassifiedRow": "answers-MODEL.jsonl", "LogLine": "NAME.log.jsonl",
         "FrozenItem": "frozen.jsonl", "ItemResult": "item-results.jsonl"}  # fmt: skip
"""Classes of the lines of JSONL files, and those files."""


def classes() -> list[type[Part]]:
    """Every public class of the package, by the module that it is in."""
    found: list[type[Part]] = []
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}"
        members = [
            m for m in vars(importlib.import_module(name)).values() if inspect.isclass(m) and m.__module__ == name
        ]
        found += [m for m in members if issubclass(m, Part) and m not in (Part, Artifact) and m.__name__[0] != "_"]
    return found


def artifacts() -> list[type[Artifact]]:
    """Every artifact."""
    return [kind for kind in classes() if issubclass(kind, Artifact)]


def tables() -> str:
    """A section for each artifact and each kind of line, each followed by its parts that were not shown before."""
    seen: set[type[Part]] = set()
    sections = []
    for kind in classes():
        if issubclass(kind, Artifact) or kind.__name__ in LINES:
            sections.append(_section(kind, f"### {_heading(kind)}"))
            for part in _parts(kind):
                if part not in seen and not issubclass(part, Artifact):
                    seen.add(part)
                    sections.append(_section(part, f"#### {part.__name__}"))
    return "\n".join(sections)


def page() -> str:
    """The whole page: what is written by hand, then the tables."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + tables()


def _section(kind: type[Part], heading: str) -> str:
    text, described = _docstring(kind)
    for base in kind.__mro__[1:]:
        if issubclass(base, Part):
            described = _docstring(base)[1] | described
    rows = []
    for name, field in kind.model_fields.items():
        meaning = described.get(name) or " ".join((field.description or "").split())
        rows.append(f"| `{name}` | {_type_name(field.annotation)} | {_null(meaning)} |")
    if issubclass(kind, Artifact):
        text += f"\n\nFormat {kind.FORMAT}."
    return "\n".join([heading, "", _null(text), "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def _null(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text)


def _docstring(kind: type[Part]) -> tuple[str, dict[str, str]]:
    """The sentences of a class, and what its lines `field   meaning` say of fields."""
    described: dict[str, str] = {}
    prose: list[str] = []
    names: list[str] = []
    for line in (inspect.getdoc(kind) or "").splitlines():
        if found := _FIELD.match(line):
            names = found[1].split(", ")
            described |= dict.fromkeys(names, found[2])
        elif names and line.startswith("  "):
            described |= {name: f"{described[name]} {line.strip()}" for name in names}
        else:
            names = []
            prose.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(prose)).strip(), {k: v.replace("|", "\\|") for k, v in described.items()}


def _type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in inner)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return f"mapping from {_type_name(inner[0])} to {_type_name(inner[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type_name(annotation.__origin__)
    return _NAMES.get(annotation) or f"[{annotation.__name__}](#{_anchor(annotation)})"


def _anchor(kind: type[Part]) -> str:
    """GitHub's anchor of a class's heading."""
    return re.sub(r"[^\w\- ]", "", _heading(kind).lower()).replace(" ", "-")


def _heading(kind: type[Part]) -> str:
    if issubclass(kind, Artifact):
        return f"{kind.__name__}: `{kind.FILE}`"
    return f"{kind.__name__}: a line of `{LINES[kind.__name__]}`" if kind.__name__ in LINES else kind.__name__


def _parts(kind: type[Part]) -> list[type[Part]]:
    """Parts in the fields of an artifact or part, at any depth, in order."""
    found: list[type[Part]] = []
    for field in kind.model_fields.values():
        for part in _classes(field.annotation):
            found += [p for p in (part, *_parts(part)) if p not in found]
    return found


def _classes(annotation: Any) -> list[type[Part]]:
    if inspect.isclass(annotation) and issubclass(annotation, Part):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _classes(inner)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
