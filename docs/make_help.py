"""Writes docs/help.md from the commands' own --help, and docs/recipe.md from the recipe's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel

from potstill.cli.main import main
from potstill.core.recipe import ClassifierRecipe, Recipe


def help_page() -> str:
    """The whole page, as Markdown."""
    parts = ["# potstill --help\n\nMade by `make docs`; a test holds it to what the command says.\n"]
    root = click.Context(main, info_name="potstill", max_content_width=100)
    parts.append(f"```\n{main.get_help(root)}\n```\n")
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        context = click.Context(command, parent=root, info_name=name, max_content_width=100)
        parts.append(f"## potstill {name}\n\n```\n{command.get_help(context)}\n```\n")
        for inner, verb in getattr(command, "commands", {}).items():
            inside = click.Context(verb, parent=context, info_name=inner, max_content_width=100)
            parts.append(f"## potstill {name} {inner}\n\n```\n{verb.get_help(inside)}\n```\n")
    return "\n".join(parts)


def _type_name(annotation: Any) -> str:
    """A field's type as a person writes it."""
    choices = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
    if len(choices) == 1 and getattr(choices[0], "__origin__", None) is Literal:
        return _type_name(choices[0])
    if choices and all(isinstance(c, str) for c in choices):
        return ", ".join(choices)
    if getattr(annotation, "__origin__", None) is dict:
        return "mapping"
    inner = choices[0] if choices else annotation
    if getattr(inner, "__metadata__", None):
        inner = inner.__origin__
    return "path" if inner is Path else str(getattr(inner, "__name__", inner))


def _sections(model: type[BaseModel], name: str) -> list[tuple[str, type[BaseModel]]]:
    """A section and those inside it, by dotted name, in the order of the class."""
    found = [(name, model)]
    for key, field in model.model_fields.items():
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found += _sections(candidate, f"{name}.{key}".lstrip("."))
    return found


def recipe_page() -> str:
    """The whole page, as Markdown."""
    parts = ["# The recipe\n\nEvery key, made by `make docs` from `potstill.core.recipe`. Paths are relative to it.\n"]
    parts += _tables(Recipe)
    parts.append("# With `task: classify`\n\nAn encoder with a classification head; a recipe of its own kind.\n")
    return "\n".join(parts + _tables(ClassifierRecipe))


def _tables(recipe: type[BaseModel]) -> list[str]:
    """A table of keys for each section."""
    parts = []
    for name, model in _sections(recipe, ""):
        rows = []
        for key, field in model.model_fields.items():
            inner = (field.annotation, *getattr(field.annotation, "__args__", ()))
            if any(isinstance(c, type) and issubclass(c, BaseModel) for c in inner):
                continue
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            meaning = " ".join((field.description or "").split())
            rows.append(f"| `{key}` | {_type_name(field.annotation)} | {default} | {meaning} |")
        text = (model.__doc__ or "").strip().replace("\n    ", "\n")
        parts.append(f"## {name or 'top level'}\n\n{text}\n\n| key | type | default | meaning |\n|---|---|---|---|")
        parts.append("\n".join(rows) + "\n")
    return parts


if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "help.md").write_text(help_page())
    (folder / "recipe.md").write_text(recipe_page())
