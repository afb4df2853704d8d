"""The models that stages hand over to each other, with the hash of their content."""

from __future__ import annotations

from pathlib import Path

from potstill.components.models.folder import resolve_model
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierRecipe, Recipe
from potstill.core.steps import Done

__all__ = ["base_model", "classifier_teacher", "optional_file", "shipped_model", "teacher_weights"]


def teacher_weights(recipe: Recipe, done: Done) -> HashedPath | None:
    """Weights of the teacher: the fine-tuned ones where the recipe fine-tunes it; None for an endpoint.

    The stage that asks must declare that it reads `finetune`.
    """
    if recipe.teacher.kind != "local":
        return None
    if "finetune" in done:
        return done.path("finetune", "model")
    return HashedPath.of_model(resolve_model(recipe.teacher.model))


def shipped_model(recipe: Recipe, done: Done) -> HashedPath:
    """The checkpoint that is exported: the student's, or that of the rung `worth.ship`.

    The stage that asks must declare that it reads `train` and `worth`.
    """
    ship = recipe.worth.ship
    if ship is None or ship == recipe.student_rung:
        return done.path("train", "student")
    return done.path("worth", ship) if ship in recipe.worth_models else done.path("train", "control")


def base_model(recipe: Recipe) -> HashedPath | None:
    """The model that the student starts from, where it starts from a checkpoint."""
    model = recipe.student.model
    return HashedPath.of_model(resolve_model(model)) if model else None


def classifier_teacher(recipe: ClassifierRecipe, done: Done) -> HashedPath:
    """The teacher of a classifier's recipe: fine-tuned where the recipe asks for it, else as it is.

    The stage that asks must declare that it reads `finetune`.
    """
    if "finetune" in done:
        return done.path("finetune", "model")
    return HashedPath.of_model(resolve_model(recipe.teacher.model))


def optional_file(path: Path | None) -> HashedPath | None:
    """A file that a recipe may leave out."""
    return HashedPath.of_file(path) if path else None
