"""The stages of a recipe with `task: classify`, in order; `potstill.pipeline.run` runs them.

The evaluate stage judges the same files that the package stage ships.
"""

from __future__ import annotations

from typing import Any

from potstill.core.recipe import ClassifierRecipe
from potstill.core.steps import Stage
from potstill.stages.check import classifier as check
from potstill.stages.evaluate import classifier as evaluate
from potstill.stages.finetune import classifier as finetune
from potstill.stages.gate import classifier as gate
from potstill.stages.package import classifier as package
from potstill.stages.report import classifier as report
from potstill.stages.train import classifier as train

__all__ = ["CLASSIFIER_STAGES"]

CLASSIFIER_STAGES: tuple[Stage[ClassifierRecipe, Any], ...] = (
    check.STAGE,
    finetune.STAGE,
    train.STAGE,
    evaluate.STAGE,
    gate.STAGE,
    package.STAGE,
    report.STAGE,
)
