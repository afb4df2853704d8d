"""The stages of a recipe that distils a language model, in order; `potstill.pipeline.run` runs them."""

from __future__ import annotations

from typing import Any

from potstill.core.recipe import Recipe
from potstill.core.steps import Stage
from potstill.stages.check import stage as check
from potstill.stages.evaluate import stage as evaluate
from potstill.stages.export import stage as export
from potstill.stages.finetune import stage as finetune
from potstill.stages.gate import stage as gate
from potstill.stages.generate import stage as generate
from potstill.stages.package import stage as package
from potstill.stages.report import stage as report
from potstill.stages.speed import stage as speed
from potstill.stages.targets import stage as targets
from potstill.stages.train import stage as train
from potstill.stages.worth import stage as worth

__all__ = ["LANGUAGE_STAGES"]

LANGUAGE_STAGES: tuple[Stage[Recipe, Any], ...] = (
    check.STAGE,
    finetune.STAGE,
    generate.STAGE,
    targets.STAGE,
    train.STAGE,
    worth.STAGE,
    export.STAGE,
    speed.STAGE,
    evaluate.STAGE,
    gate.STAGE,
    package.STAGE,
    report.STAGE,
)
