"""`potstill search --measure N`: train students for a short time, and rank them by their loss on held-out rows.

The rank after a short training stands for the rank after the whole one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.apps.plan.search import Measured, SearchResult, StudentRow
from potstill.core.artifacts.training import Trained
from potstill.core.errors import RecipeError, UsageError
from potstill.core.recipe import Recipe, load_recipe

__all__ = ["chosen_students", "measured_student", "require_measurable", "short_recipe"]


def require_measurable(recipe: Recipe | None, share: float) -> None:
    """Raise an error for a recipe whose students cannot be ranked by a short training.

    Raises:
        UsageError: there is no recipe, or `share` is no share.
        RecipeError: the recipe has no validation rows.
    """
    if recipe is None:
        raise UsageError("--measure needs a recipe (.yaml). Give one in place of the model, or leave it out.")
    if not 0 < share <= 1:
        raise UsageError(f"--share {share:g}: give the share of the recipe's training, above 0 and at most 1.")
    if recipe.data.validation is None:
        raise RecipeError(
            "--measure ranks students by their loss on rows that none is trained on: set data.validation in the recipe."
        )


def chosen_students(found: SearchResult, number: int) -> list[StudentRow]:
    """Up to `number` students that are cut from the teacher, evenly spaced from the best of the short table to the
    fastest; each once, whatever its quantization.

    Raises:
        UsageError: there is no such student.
    """
    apart: dict[str, StudentRow] = {}
    for place in found.shown:
        row = found.students[place - 1]
        if row.origin == "teacher":
            apart.setdefault(_id(row), row)
    rows = list(apart.values())
    if not rows:
        raise UsageError("--measure trains students that are cut from the teacher, and none of those found is.")
    if len(rows) <= number:
        return rows
    gap = (len(rows) - 1) / max(1, number - 1)
    return [rows[round(place * gap)] for place in range(number)]


def short_recipe(path: Path, row: StudentRow, share: float) -> Recipe:
    """The recipe with another student in its quantization, no control, and a share of its training.

    Raises:
        RecipeError: the recipe does not allow this student; the message names the key.
    """
    recipe = load_recipe(path)
    changes: Mapping[str, Any] = {
        "student": dict(row.student),
        "export.quantization": row.quantization,
        "train.control": "none",
        "train.epochs": recipe.train.epochs * share,
        "gates.beats_control": False,
        "worth.ship": None,
    }
    changed = load_recipe(path, {key: json.dumps(value) for key, value in changes.items()})
    assert isinstance(changed, Recipe)
    return changed


def measured_student(row: StudentRow, train_step: Path) -> Measured:
    """What a finished train step found."""
    student = Trained.read(train_step).student
    loss = min(point.loss for point in student.validation)
    return Measured(_id(row), row.kept, student.params, loss, student.steps, student.seconds)


def _id(row: StudentRow) -> str:
    return row.id.rpartition("/")[0]
