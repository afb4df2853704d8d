"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from potstill.core.errors import RecipeError

if TYPE_CHECKING:
    from potstill.core.recipe import AnyRecipe, Recipe

__all__ = ["json_option", "load", "load_language", "recipe_argument", "runs_option", "tracker_option"]

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


def load(path: Path, tracker: str | None = None, changes: dict[str, str] | None = None) -> AnyRecipe:
    """A recipe, with dotted keys changed as `--sweep` asks."""
    from potstill.core.recipe import load_recipe

    recipe = load_recipe(path, changes)
    if tracker:
        recipe = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"tracker": tracker})})
    return recipe


def load_language(path: Path) -> Recipe:
    """A language model's recipe, for a command that supports no other task."""
    from potstill.core.recipe import Recipe

    recipe = load(path)
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"{path}: this command supports language models only, and the task of this recipe is {recipe.task}."
        )
    return recipe
