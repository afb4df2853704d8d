"""Report: the page that a person reads. It is self-contained, without scripts, and loads nothing from the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from potstill.components.sizing.prices import ListedPrice, find_price
from potstill.core.artifacts.coverage import Coverage
from potstill.core.artifacts.generated import rows_file
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.metrics import Metrics
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import Verdict
from potstill.core.files import write_text
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Economy, Recipe, RungName, Target
from potstill.core.steps import Done, Stage

__all__ = ["STAGE", "ReportInputs"]

_STEPS = (
    "check",
    "finetune",
    "generate",
    "targets",
    "train",
    "worth",
    "export",
    "speed",
    "evaluate",
    "gate",
    "package",
)


@dataclass(frozen=True)
class ReportInputs:
    """What the page shows.

    price           price of the teacher's tokens; None: not known, and the page says nothing about costs
    teacher_kind    an `api` teacher charges for the answers that the student learns from
    objective       name of the objective of the model that ships
    ships           rung of the worth ladder that ships in place of the student; None: the student
    logs            training logs of `student` and `control`
    answers         the rows that the teacher answered
    steps           step.json of each finished step by stage
    coverage        quotas of the curriculum; None for a recipe without one
    """

    name: str
    target: Target
    economy: Economy
    price: ListedPrice | None
    teacher_kind: Literal["local", "api"]
    objective: str
    ships: RungName | None
    metrics: HashedPath
    verdict: HashedPath
    manifest: HashedPath
    trained: HashedPath
    logs: dict[str, HashedPath]
    answers: HashedPath
    steps: dict[str, HashedPath]
    coverage: HashedPath | None = None


def _inputs(recipe: Recipe, done: Done) -> ReportInputs:
    logs = {name: done.optional_path("train", f"{name}.log.jsonl") for name in ("student", "control")}
    return ReportInputs(
        name=recipe.name,
        target=recipe.target,
        economy=recipe.economy,
        price=find_price(recipe),
        teacher_kind="local" if recipe.teacher.kind == "local" else "api",
        objective=recipe.shipped_objective,
        ships=recipe.shipped_rung if recipe.shipped_rung != recipe.student_rung else None,
        metrics=done.path("evaluate", Metrics.FILE),
        verdict=done.path("gate", Verdict.FILE),
        manifest=done.path("package", "package", Manifest.FILE),
        trained=done.path("train", Trained.FILE),
        logs={name: path for name, path in logs.items() if path},
        answers=done.path("generate", rows_file("train")),
        steps={name: done.path(name, StepRecord.FILE) for name in _STEPS if name in done},
        coverage=done.optional_path("generate", Coverage.FILE),
    )


def _run(inputs: ReportInputs, out: Path) -> None:
    from potstill.stages.report.facts import read_facts
    from potstill.stages.report.page import render_page

    write_text(out / "report.html", render_page(read_facts(inputs)))


STAGE = Stage(name="report", reads=_STEPS, inputs=_inputs, run=_run, version=7)
