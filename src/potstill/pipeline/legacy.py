"""Stages that are not yet declared by `Stage`: wrapped, so that one `run_step` runs all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.core import hashing
from potstill.core.recipe.fields import Section
from potstill.core.steps import Done, Stage, StepResult
from potstill.pipeline.result import RunResult

__all__ = ["RunResult", "StepPlan", "hash_model", "section_parts", "wrapped"]

StepPlan = tuple[Mapping[str, Any], tuple[str, ...], Callable[[Path], None]]
_TOGETHER = ("finetune", "train")


@dataclass(frozen=True)
class LegacyInputs:
    """Hand-typed parts and upstream fingerprints."""

    parts: Mapping[str, Any]
    upstream: Mapping[str, str]


def hash_model(folder: Path | None) -> str | None:
    """A model's hash; None without a folder."""
    return hashing.hash_model(folder) if folder else None


def section_parts(section: Section, *leave_out: str) -> dict[str, Any]:
    """A recipe section's values for a fingerprint."""
    return dict(section.model_dump(mode="json", exclude={"license", *leave_out}))


def wrapped(name: str, plan: StepPlan | None, steps: Mapping[str, StepResult]) -> Stage[Any, Any]:
    """A stage of today's kind as a `Stage`."""
    if plan is None:
        return Stage(name, (), lambda recipe, done: None, lambda inputs, out: None)
    parts, upstream, build = plan
    inputs = LegacyInputs(parts, {stage: steps[stage].fingerprint for stage in upstream if stage in steps})

    def make(recipe: Any, done: Done) -> LegacyInputs:
        return inputs

    return Stage(name, tuple(upstream), make, lambda _, out: build(out), together=name in _TOGETHER)
