"""The stages of a recipe with `task: classify`, in order: an encoder with a classification head.

    check -> finetune (if asked) -> train -> evaluate -> gate -> package

What is judged is what is packaged, file by file. See `potstill.pipeline.run` for how stages are run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from potstill.components.chat.format import resolve_model
from potstill.core.hashing import hash_file
from potstill.core.recipe import ClassifierRecipe
from potstill.pipeline.legacy import RunResult, StepPlan, hash_model
from potstill.stages.check import classifier as check
from potstill.stages.evaluate import classifier as evaluate
from potstill.stages.gate import classifier as gate
from potstill.stages.package import classifier as package
from potstill.stages.train import stage as train

__all__ = ["CLASSIFIER_STAGES"]


def _rows(recipe: ClassifierRecipe) -> dict[str, Any]:
    """What the training rows are, by content; a missing file is told by the check itself."""
    data = recipe.data
    paths = {"train": data.train, "validation": data.validation}
    return {name: hash_file(p) if p and p.is_file() else None for name, p in paths.items()} | {"context": data.context}


def _base(recipe: ClassifierRecipe) -> Path:
    return resolve_model(recipe.teacher.model, recipe.teacher.revision)


def _teacher(recipe: ClassifierRecipe, done: RunResult) -> Path:
    return done.folder("finetune") / "model" if "finetune" in done.steps else _base(recipe)


def _finetune(recipe: ClassifierRecipe, done: RunResult) -> StepPlan | None:
    settings = recipe.teacher.finetune
    if settings is None:
        return None
    base = _base(recipe)
    parts = {
        "version": train.VERSION,
        "settings": settings.hashed_values(),
        "trainer": recipe.trainer.hashed_values(),
        "rows": _rows(recipe),
        "base": hash_model(base),
        "seed": recipe.seed,
    }
    return parts, (), partial(train.finetune_classifier, recipe, base)


def _train(recipe: ClassifierRecipe, done: RunResult) -> StepPlan:
    teacher = _teacher(recipe, done)
    parts = {
        "version": train.VERSION,
        "settings": recipe.train.hashed_values(),
        "trainer": recipe.trainer.hashed_values(),
        "student": recipe.student.hashed_values(),
        "rows": _rows(recipe),
        "teacher": hash_model(teacher),
        "seed": recipe.seed,
    }
    return parts, ("finetune",), partial(train.distil_classifier, recipe, teacher)


CLASSIFIER_STAGES: dict[str, Any] = {
    "check": check.STAGE, "finetune": _finetune, "train": _train, "evaluate": evaluate.STAGE, "gate": gate.STAGE,
    "package": package.STAGE,
}  # fmt: skip
