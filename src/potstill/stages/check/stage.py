"""Plan: what a run needs and whether it can work, by arithmetic and by looking at every row, before it is paid for."""

from __future__ import annotations

from pathlib import Path

from potstill.core.files import write_json
from potstill.core.recipe import ClassifierRecipe, Recipe

__all__ = ["VERSION", "check", "check_classifier"]

VERSION = 3


def check(recipe: Recipe, runs: Path, out: Path) -> None:
    """Check a recipe, and write `check.json`.

    Args:
        recipe: the recipe.
        runs: folder the run is kept in, whose disk must hold it.
        out: step directory; nothing is written where the check fails.

    Raises:
        RecipeError: the recipe cannot work; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    from potstill.stages.check.checks import check_recipe

    write_json(out / "check.json", check_recipe(recipe, runs).to_json())


def check_classifier(recipe: ClassifierRecipe, base: Path, out: Path) -> None:
    """Check a classifier's recipe, and write `check.json`.

    Args:
        recipe: the recipe.
        base: folder of `teacher.model`.
        out: step directory; nothing is written where the check fails.

    Raises:
        RecipeError: the recipe cannot work; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    from potstill.stages.check.classifier import check_classifier_recipe

    write_json(out / "check.json", check_classifier_recipe(recipe, base))
