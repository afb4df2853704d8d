"""What people call the models of a recipe: hub ids, and names of folders without their paths."""

from __future__ import annotations

from pathlib import Path

from potstill.core.recipe import Recipe, split_revision

__all__ = ["base_model_name", "model_name", "teacher_name"]


def model_name(model: str) -> str:
    """A hub id as it is, or the name of a folder without its path."""
    return Path(model).name if Path(model).is_absolute() else split_revision(model)[0]


def teacher_name(recipe: Recipe) -> str:
    """Name of the teacher; one that was trained from random weights is named after its run."""
    finetune = recipe.teacher.finetune
    return f"{recipe.name}-teacher" if finetune and finetune.shape else model_name(recipe.teacher.model)


def base_model_name(recipe: Recipe) -> str:
    """Name of the model that the student descends from: its starting weights, or the teacher that it learnt from."""
    return model_name(recipe.student.model) if recipe.student.model else teacher_name(recipe)
