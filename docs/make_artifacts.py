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


def artifacts() -> list[type[Artifact]]:
    """Every artifact, by the module that it is in."""
    found: list[type[Artifact]] = []
    for module in pkgutil.iter_modules(package.__path__):
        members = vars(importlib.import_module(f"{package.__name__}.{module.name}")).values()
        found += [
            m for m in members if inspect.isclass(m) and issubclass(m, Artifact) and m.__module__.endswith(module.name)
        ]
    return [kind for kind in found if kind is not Artifact and not kind.__name__.startswith("_")]


def tables() -> str:
    """A section for each artifact, and after it one for each part that no earlier one has shown."""
    seen: set[type[Part]] = set()
    sections = []
    for kind in artifacts():
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
    rows = []
    for name, field in kind.model_fields.items():
        meaning = described.get(name) or " ".join((field.description or "").split())
        rows.append(f"| `{name}` | {_type_name(field.annotation)} | {_null(meaning)} |")
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
    heading = _heading(kind) if issubclass(kind, Artifact) else kind.__name__
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _heading(kind: type[Artifact]) -> str:
    return f"{kind.__name__}: `{kind.FILE}`, format {kind.FORMAT}"


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
