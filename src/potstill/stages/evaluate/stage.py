"""Measure the file that ships, and beside it the checkpoint, the control and the teacher; then judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from potstill.core.recipe import ClassifierRecipe, Recipe

__all__ = ["VERSION", "gate", "gate_classifier", "run", "run_classifier"]

VERSION = 2


def run(recipe: Recipe, teacher_folder: Path | None, steps: Mapping[str, Path], out: Path) -> None:
    """Answer the test rows with each model, and write answers and `metrics.json`.

    Args:
        recipe: the recipe.
        teacher_folder: the teacher's weights; None for an endpoint.
        steps: directories of the steps train, generate and export.
        out: step directory; answers that are there already are not asked for again.
    """
    from potstill.stages.evaluate.measure import measure

    measure(recipe, teacher_folder, steps, out)


def gate(recipe: Recipe, evaluated: Path, out: Path) -> None:
    """Judge `metrics.json` by the recipe's thresholds, and write `verdict.json`.

    Args:
        recipe: the recipe.
        evaluated: directory of the evaluate step.
        out: step directory.
    """
    from potstill.stages.gate.judgement import judge_run

    judge_run(recipe, evaluated, out)


def run_classifier(recipe: ClassifierRecipe, teacher_folder: Path, trained: Path, out: Path) -> None:
    """Classify the test rows with teacher, student and control, and write answers and `metrics.json`.

    Args:
        recipe: the recipe.
        teacher_folder: the teacher, with its classification head.
        trained: directory of the train step.
        out: step directory.
    """
    from potstill.stages.evaluate.classifier import measure_classifier

    measure_classifier(recipe, teacher_folder, trained, out)


def gate_classifier(recipe: ClassifierRecipe, evaluated: Path, out: Path) -> None:
    """Judge `metrics.json` by the recipe's thresholds, and write `verdict.json`.

    Args:
        recipe: the recipe.
        evaluated: directory of the evaluate step.
        out: step directory.
    """
    from potstill.stages.evaluate.classifier import judge_classifier

    judge_classifier(recipe, evaluated, out)
