"""A recipe's values for a manifest, without paths of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.core.recipe import AnyRecipe, Recipe

__all__ = ["portable_recipe"]

_MIN_PARTS = 3  # a common folder such as /home/name has three; with a shorter one, paths below it would show the name


def portable_recipe(recipe: AnyRecipe) -> dict[str, Any]:
    """The recipe's values as JSON.

    Files and folders are relative to the folder that all of them have in common. If that folder is so near the root
    that relative paths would say something about the machine, files and folders have their names only.
    """
    known = {str(path) for path in _paths(recipe.model_dump())}
    models = [recipe.teacher.model]
    if isinstance(recipe, Recipe):
        models += [recipe.chat.template, recipe.student.model or ""]
    known |= {model for model in models if model and Path(model).is_absolute()}
    common = Path(os.path.commonpath([str(Path(path).parent) for path in known]))
    relative = len(common.parts) >= _MIN_PARTS

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: portable(item) for key, item in value.items()}
        if isinstance(value, str) and value in known:
            return Path(value).relative_to(common).as_posix() if relative else Path(value).name
        return value

    values: dict[str, Any] = portable(recipe.model_dump(mode="json"))
    return values


def _paths(value: Any) -> Iterator[Path]:
    """Every path in nested values."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _paths(item)
