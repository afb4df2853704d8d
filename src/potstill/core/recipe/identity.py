"""The identity of a recipe: a hash of all its values, the same wherever the recipe lies."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from potstill.core.recipe.load import AnyRecipe

__all__ = ["recipe_hash"]


def recipe_hash(recipe: AnyRecipe) -> str:
    """SHA-256 of the recipe's values, defaults included, with paths relative to the recipe."""

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: portable(v) for key, v in value.items()}
        if isinstance(value, list):
            return [portable(v) for v in value]
        local = isinstance(value, str) and os.path.isabs(value)
        return Path(os.path.relpath(value, recipe.folder)).as_posix() if local else value

    values = portable(recipe.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
