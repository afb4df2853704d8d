"""What the earlier steps left, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from potstill.core.artifacts.base import read_parts
from potstill.core.artifacts.coverage import Coverage
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.metrics import Metrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.training import LogLine, Trained, read_log
from potstill.core.artifacts.verdict import Verdict
from potstill.core.recipe import RungName
from potstill.stages.report.stage import ReportInputs

__all__ = ["AnswerTokens", "Facts", "read_facts"]


class AnswerTokens(BaseModel):
    """Numbers of tokens of a prompt and of the teacher's answer."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _AnsweredRow(BaseModel):
    provenance: AnswerTokens = AnswerTokens()


@dataclass(frozen=True)
class Facts:
    """The stage's inputs, and the artifacts that they name.

    ships     rung of the worth ladder that ships in place of the student; None: the student
    logs      training logs by model
    answers   tokens of each row that the teacher answered
    steps     records of the run's steps by stage
    coverage  quotas of the curriculum; None for a recipe without one
    """

    inputs: ReportInputs
    metrics: Metrics
    verdict: Verdict
    manifest: Manifest
    trained: Trained
    ships: RungName | None
    logs: Mapping[str, Sequence[LogLine]]
    answers: Sequence[AnswerTokens]
    steps: Mapping[str, StepRecord]
    coverage: Coverage | None = None

    @property
    def speed(self) -> MeasuredSpeed:
        """Speed and memory on the device where they were measured there, else on the machine of the run."""
        return self.verdict.device or self.manifest.speed


def read_facts(inputs: ReportInputs) -> Facts:
    """Read the artifacts."""
    rows = [row.provenance for row in read_parts(inputs.answers.path, _AnsweredRow)]
    return Facts(
        inputs=inputs,
        metrics=Metrics.read(inputs.metrics.path.parent),
        verdict=Verdict.read(inputs.verdict.path.parent),
        manifest=Manifest.read(inputs.manifest.path.parent),
        trained=Trained.read(inputs.trained.path.parent),
        ships=inputs.ships,
        logs={name: read_log(inputs.trained.path.parent, name) for name in inputs.logs},
        answers=[row for row in rows if row.prompt_tokens and row.completion_tokens],
        steps={name: StepRecord.read(file.path.parent) for name, file in inputs.steps.items()},
        coverage=Coverage.read(inputs.coverage.path.parent) if inputs.coverage else None,
    )
