"""The sections of a classifier's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potstill.core.artifacts.answers import ClassifiedRow
from potstill.core.artifacts.manifest import ClassifierManifest
from potstill.core.artifacts.metrics import ClassifierMetrics, ClassifierModelMetrics
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.format import format_count, format_interval, format_level, format_number, format_size
from potstill.stages.report.classifier import ClassifierReportInputs
from potstill.stages.report.provenance import ProvenanceSection, provenance_of, tuned_on
from potstill.stages.report.text import RateCell, percent, unbroken
from potstill.stages.report.verdict import Figure, VerdictSection, verdict_with

__all__ = [
    "ClassifierFacts",
    "ClassifierSections",
    "classifier_provenance",
    "classifier_sections",
    "classifier_verdict",
]

_NAMES = {
    "teacher": "Teacher",
    "start": "Before training",
    "student": "Distilled student",
    "control": "Plain fine-tuning",
}
_MOST = 12  # confusions that the page shows


@dataclass(frozen=True)
class ClassifierFacts:
    """The stage's inputs, and the artifacts that they name."""

    inputs: ClassifierReportInputs
    metrics: ClassifierMetrics
    verdict: Verdict
    manifest: ClassifierManifest
    answers: Sequence[ClassifiedRow]
    steps: Mapping[str, StepRecord]


@dataclass(frozen=True)
class ModelRow:
    """One model: accuracy of all rows, in scope and out of scope; size; distance from the teacher."""

    name: str
    rates: Sequence[RateCell | None]
    parameters: str
    size: str
    kl: str


@dataclass(frozen=True)
class Confusion:
    """A label, what the student gave instead, how often, and an example."""

    label: str
    predicted: str
    count: int
    text: str


@dataclass(frozen=True)
class ClassifierSections:
    """Tables of the page.

    level        confidence level of the intervals
    scoped       whether rows in and out of scope are distinguished
    sentences    what the verdict's notes say
    speed        name, value and interval of each measured time
    mistakes     number of test rows that the student got wrong, and the most frequent kinds
    """

    level: str
    leaked: str
    scoped: bool
    models: Sequence[ModelRow]
    sentences: Sequence[str]
    speed: Sequence[tuple[str, str, str]]
    threads: str
    mistakes: int
    confusions: Sequence[Confusion]


def classifier_verdict(facts: ClassifierFacts) -> VerdictSection:
    """The verdict, and the few main numbers."""
    models, speed = facts.metrics.models, facts.metrics.speed
    student, teacher = models.student, models.teacher
    share = percent(student.params / teacher.params)
    return verdict_with(
        facts.verdict,
        [
            Figure(percent(student.exact.rate), f"accuracy; the teacher has {percent(teacher.exact.rate)}"),
            Figure(format_size(student.bytes), f"of weights; {share} of the teacher's parameters"),
            Figure(f"{format_number(speed.student_ms.median)} ms", "per text"),
            Figure(format_number(speed.speedup.median), "times as fast as the teacher"),
        ],
    )


def classifier_sections(facts: ClassifierFacts) -> ClassifierSections:
    """Quality, speed and mistakes."""
    metrics = facts.metrics
    scoped, speed = metrics.models.student.in_scope is not None, metrics.speed
    times = (
        ("Student, per text", speed.student_ms, "ms"),
        ("Teacher, per text", speed.teacher_ms, "ms"),
        ("Speed-up, text by text", speed.speedup, "x"),
    )
    wrong = [answer for answer in facts.answers if not answer.exact]
    return ClassifierSections(
        level=unbroken(format_level(metrics.confidence)),
        leaked=metrics.leaked.sentence,
        scoped=scoped,
        models=[_model(_NAMES[name], model, scoped) for name, model in metrics.models.present()],
        sentences=[unbroken(note) for note in facts.verdict.notes],
        speed=[
            (name, f"{format_number(s.median)} {unit}", unbroken(format_interval(s.low, s.high, unit, digits=3)))
            for name, s, unit in times
        ],
        threads=format_count(speed.threads, "thread"),
        mistakes=len(wrong),
        confusions=_confusions(wrong),
    )


def classifier_provenance(facts: ClassifierFacts) -> ProvenanceSection:
    """Where the model came from."""
    manifest = facts.manifest
    named = (
        ("Teacher", manifest.teacher.name),
        ("Teacher's licence", manifest.teacher.license),
        ("Teacher fine-tuned on", tuned_on(manifest)),
        ("Licence of the data", manifest.data.license),
        ("Licence of this model", manifest.license),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    )
    return provenance_of(manifest, facts.steps, named)


def _model(name: str, model: ClassifierModelMetrics, scoped: bool) -> ModelRow:
    rates = [model.exact, *([model.in_scope, model.out_of_scope] if scoped else [])]
    return ModelRow(
        name=name,
        rates=[RateCell(rate) if rate else None for rate in rates],
        parameters=f"{model.params:,}",
        size=format_size(model.bytes),
        kl=format_number(model.fidelity.kl_mean) if model.fidelity else "",
    )


def _confusions(wrong: Sequence[ClassifiedRow]) -> list[Confusion]:
    counts = Counter((answer.label, answer.predicted) for answer in wrong)
    first = {(answer.label, answer.predicted): answer.text for answer in reversed(wrong)}
    return [Confusion(*pair, count, first[pair]) for pair, count in counts.most_common(_MOST)]
