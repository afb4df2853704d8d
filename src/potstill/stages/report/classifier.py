"""Report of a classifier: the page that a person reads, self-contained like a language model's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.core.artifacts.answers import ClassifiedRow, answers_file, read_answers
from potstill.core.artifacts.manifest import ClassifierManifest
from potstill.core.artifacts.metrics import ClassifierMetrics
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.files import write_text
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierRecipe
from potstill.core.steps import Done, Stage

__all__ = ["STAGE", "ClassifierReportInputs"]

_STEPS = ("check", "finetune", "train", "evaluate", "gate", "package")


@dataclass(frozen=True)
class ClassifierReportInputs:
    """What the page shows; `answers` are the student's, and `steps` is step.json of each finished step by stage."""

    name: str
    metrics: HashedPath
    verdict: HashedPath
    manifest: HashedPath
    answers: HashedPath
    steps: dict[str, HashedPath]


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierReportInputs:
    return ClassifierReportInputs(
        name=recipe.name,
        metrics=done.path("evaluate", ClassifierMetrics.FILE),
        verdict=done.path("gate", Verdict.FILE),
        manifest=done.path("package", "package", ClassifierManifest.FILE),
        answers=done.path("evaluate", answers_file("student")),
        steps={name: done.path(name, StepRecord.FILE) for name in _STEPS if name in done},
    )


def _run(inputs: ClassifierReportInputs, out: Path) -> None:
    from potstill.stages.report.classified import ClassifierFacts
    from potstill.stages.report.page import render_classifier_page

    facts = ClassifierFacts(
        inputs=inputs,
        metrics=ClassifierMetrics.read(inputs.metrics.path.parent),
        verdict=Verdict.read(inputs.verdict.path.parent),
        manifest=ClassifierManifest.read(inputs.manifest.path.parent),
        answers=read_answers(inputs.answers.path, ClassifiedRow),
        steps={name: StepRecord.read(file.path.parent) for name, file in inputs.steps.items()},
    )
    write_text(out / "report.html", render_classifier_page(facts))


STAGE = Stage(name="report", reads=_STEPS, inputs=_inputs, run=_run, version=2)
