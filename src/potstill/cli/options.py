"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.core.errors import RecipeError

if TYPE_CHECKING:
    from potstill.core.recipe import AnyRecipe, Recipe

__all__ = [
    "PlainFloat",
    "json_option",
    "load",
    "load_language",
    "offline_option",
    "recipe_argument",
    "runs_option",
    "tracker_option",
]


class PlainFloat(click.FloatRange):
    """A finite number within limits. Click's own type lets NaN through, which is neither too small nor too large."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder that holds all runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
tracker_option = click.option(
    "--tracker",
    type=click.Choice(["tensorboard", "wandb", "trackio", "none"]),
    help="Where the training curves go. Overrides the recipe.",
)


offline_option = click.option(
    "--offline", is_flag=True, help="Send nothing to an endpoint: all answers must be in the journal of earlier runs."
)


def load(
    path: Path, tracker: str | None = None, changes: dict[str, str] | None = None, *, offline: bool = False
) -> AnyRecipe:
    """A recipe, with dotted keys changed as `--sweep` asks."""
    from potstill.core.recipe import load_recipe

    recipe = load_recipe(path, changes)
    if tracker:
        recipe = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"tracker": tracker})})
    return _offline(recipe, path) if offline else recipe


def _offline(recipe: AnyRecipe, path: Path) -> AnyRecipe:
    from potstill.core.recipe import ApiTeacher, SeveralTeachers

    if not isinstance(recipe.teacher, ApiTeacher | SeveralTeachers):
        raise RecipeError(f"{path}: --offline is for a teacher behind an endpoint (kind: api): leave it out.")
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"offline": True})})


def load_language(path: Path) -> Recipe:
    """A language model's recipe, for a command that supports no other task."""
    from potstill.core.recipe import Recipe

    recipe = load(path)
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"{path}: this command supports language models only, and the task of this recipe is {recipe.task}."
        )
    return recipe
