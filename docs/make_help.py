"""Writes docs/help.md by invoking every command with --help, and docs/recipe.md from the classes of the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from potstill.cli.main import main
from potstill.core.recipe import ClassifierRecipe, Recipe, Shape
from potstill.core.recipe.problems import sections_of

FOLDER = Path(__file__).parent
_NAMES = {
    str: "text",
    Shape: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    dict: "mapping",
    tuple: "list",
}


def help_page() -> str:
    """The whole page, as Markdown."""
    parts = ["# Commands\n\nMade by `make docs`, which invokes every command with `--help`.\n"]
    for words in (["potstill"], *_commands(main, ["potstill"])):
        shown = CliRunner().invoke(main, [*words[1:], "--help"], prog_name="potstill", terminal_width=100)
        assert shown.exit_code == 0, shown.output
        parts.append(f"## {' '.join(words)}\n\n```\n{shown.output.rstrip()}\n```\n")
    return "\n".join(parts)


def _commands(group: click.Group, words: list[str]) -> Iterator[list[str]]:
    """The words of every command below a group, in the order in which help lists them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield [*words, name]
        if isinstance(command, click.Group):
            yield from _commands(command, [*words, name])


def recipe_page() -> str:
    """The whole page, as Markdown."""
    parts = [
        "# The recipe\n\nMade by `make docs` from `potstill.core.recipe`. Paths are relative to the folder of the "
        "recipe. An unknown key is an error that names the nearest one. Where a section is a choice, such as "
        "`train.objective`, a bare value stands for the choice with its defaults: `objective: jsd`.\n",
        *_section("", {"": Recipe}, "##"),
        "# Recipes with `task: classify`\n\nFor an encoder with a classification head.\n",
        *_section("", {"": ClassifierRecipe}, "##"),
    ]
    return "\n".join(parts)


def _section(name: str, kinds: dict[str, type[BaseModel]], level: str, only: str = "") -> Iterator[str]:
    """A section with its table of keys, and the sections inside it.

    Args:
        name: dotted key of the section.
        kinds: its class, or the classes of a choice by the value of the key that names the choice.
        level: Markdown's mark of the heading.
        only: a sentence on where the section may stand.
    """
    kind, tag, with_keys = next(iter(kinds.values())), "", list(kinds.values())
    if len(kinds) == 1:
        yield f"{level} {name or 'Top level'}\n\n{_prose(kind)}{only}\n\n{_table(kind.model_fields)}"
    else:
        tag = next(key for key in kind.model_fields if all(_is_tag(k, key) for k in kinds.values()))
        with_keys = [k for k in kinds.values() if set(k.model_fields) != {tag}]
        shared = {key: f for key, f in with_keys[0].model_fields.items() if all(_same(k, key, f) for k in with_keys)}
        values = ", ".join(f"`{value}`" for value in kinds)
        table = _table({tag: kind.model_fields[tag], **shared}, {tag: values})
        yield f"{level} {name}\n\nA choice by `{tag}`.{only} Common keys:\n\n{table}"
        for value, variant in kinds.items():
            own = {k: f for k, f in variant.model_fields.items() if k not in shared and k != tag}
            prose = _prose(variant) + ("" if variant in with_keys else " No further keys.")
            yield f"{level}# {name}: `{tag}: {value}`\n\n{prose}\n\n{_table(own)}".rstrip() + "\n"
    for key, (inner, where) in _inner(kinds).items():
        listed = " or ".join(f"`{tag}: {value}`" for value in where)
        note = f" Only with {listed}." if len(where) < len(with_keys) else ""
        yield from _section(f"{name}.{key}".lstrip("."), inner, level, note)


def _same(kind: type[BaseModel], key: str, field: FieldInfo) -> bool:
    other = kind.model_fields.get(key)
    return other is not None and (other.annotation, other.description) == (field.annotation, field.description)


def _is_tag(kind: type[BaseModel], key: str) -> bool:
    field = kind.model_fields.get(key)
    return field is not None and get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _inner(kinds: dict[str, type[BaseModel]]) -> dict[str, tuple[dict[str, type[BaseModel]], list[str]]]:
    """Sections in the fields of any variant, each once, with the variants that have it."""
    found: dict[str, tuple[dict[str, type[BaseModel]], list[str]]] = {}
    for value, kind in kinds.items():
        for key, field in kind.model_fields.items():
            if inner := sections_of(field):
                found.setdefault(key, (inner, []))[1].append(value)
    return found


def _prose(kind: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _table(fields: dict[str, FieldInfo], types: dict[str, str] | None = None) -> str:
    """A table of keys that are not sections; `types` are written instead of a field's own."""
    rows = [
        f"| `{key}` | {(types or {}).get(key) or _type_name(field.annotation)} | {_meaning(field)} |"
        for key, field in fields.items()
        if not sections_of(field)
    ]
    return "\n".join(["| key | type | meaning |", "|---|---|---|", *rows, ""]) if rows else ""


def _type_name(annotation: Any) -> str:
    """A field's type in words."""
    origin, inner = get_origin(annotation), [a for a in get_args(annotation) if a is not type(None)]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if hasattr(annotation, "__metadata__"):
        return _type_name(annotation.__origin__)
    if origin in _NAMES:
        return _NAMES[origin]
    if origin is Union or len(inner) == 1:
        return _type_name(inner[0])
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


if __name__ == "__main__":
    (FOLDER / "help.md").write_text(help_page(), encoding="utf-8")
    (FOLDER / "recipe.md").write_text(recipe_page(), encoding="utf-8")
