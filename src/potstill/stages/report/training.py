"""Training curves, and what the training cost in time, steps and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.core.artifacts.training import TrainSummary
from potstill.core.artifacts.worth import RUNG_NAMES
from potstill.core.format import format_duration, format_large
from potstill.stages.report.charts import Line, training_chart
from potstill.stages.report.facts import Facts
from potstill.stages.report.quality import ModelKey

__all__ = ["Chart", "SummaryRow", "TrainingSection", "training_section"]

_NAMES = {"student": "Distilled student", "control": "Plain fine-tuning"}


@dataclass(frozen=True)
class Chart:
    """A chart with its title."""

    title: str
    chart: Markup


@dataclass(frozen=True)
class SummaryRow:
    """The training of one model."""

    name: str
    seconds: str
    steps: str
    tokens: str


@dataclass(frozen=True)
class TrainingSection:
    """Charts, their legend, and a table.

    said   sentences on the effect of training on the student and its control, on their budget, and on which weights are
    kept
    """

    said: Sequence[str]
    charts: Sequence[Chart]
    models: Sequence[ModelKey]
    summaries: Sequence[SummaryRow]


def training_section(facts: Facts) -> TrainingSection | None:
    """Curves of what was logged; None without logs."""
    if not facts.logs:
        return None
    charts = (
        _chart(facts, "cross_entropy", "Cross-entropy on the teacher's answers", ("student", "control")),
        _chart(facts, "divergence", "Divergence from the teacher", ("student",)),
    )
    return TrainingSection(
        said=[sentence for sentence in _said(facts) if sentence],
        charts=[chart for chart in charts if chart],
        models=[ModelKey(name, _NAMES[name]) for name in facts.logs],
        summaries=[_summary(_NAMES[name], summary) for name, summary in _summaries(facts).items()],
    )


def _summaries(facts: Facts) -> dict[str, TrainSummary]:
    """The trainings by model."""
    trained = {"student": facts.trained.student, "control": facts.trained.control}
    return {name: summary for name, summary in trained.items() if summary}


def _said(facts: Facts) -> Iterator[str]:
    models, student, control = facts.metrics.models, facts.trained.student, facts.trained.control
    yield models.gain()
    budget = (
        f"{student.steps:,} optimizer steps at a peak learning rate of {student.learning_rate:g} in {student.precision}"
    )
    if control:
        yield f"The student and its control had the same budget: the same start, rows and seed, and {budget}."
    else:
        yield f"The student had {budget}."
    if facts.ships:
        yield (
            "The model that ships is not this student but the rung of the worth ladder that learnt from "
            f"{RUNG_NAMES[facts.ships]} (worth.ship)."
        )
    yield facts.metrics.harm(student.learning_rate)
    yield from facts.trained.findings()


def _chart(facts: Facts, quantity: str, title: str, models: tuple[str, ...]) -> Chart | None:
    """One quantity over steps: training as a line, validation as marks; None where it was not logged."""
    lines, parts = [], []
    for name, summary in _summaries(facts).items():
        if name not in models:
            continue
        training = [(line.step + 1, value) for line in facts.logs.get(name, ()) if (value := getattr(line, quantity))]
        validation = [(point.step, value) for point in summary.validation if (value := getattr(point, quantity))]
        for points, dotted in ((training, False), (validation, True)):
            if points:
                x, y = zip(*points, strict=True)
                lines.append(Line(name, x, y, dotted))
                rows = "validation" if dotted else "training"
                parts.append(f"{_NAMES[name]}, {rows}: from {y[0]:.3g} to {y[-1]:.3g}")
    if not lines:
        return None
    label = f"{title}, nats per token, over optimizer steps. {'; '.join(parts)}."
    return Chart(title, training_chart(lines, f"curve-{quantity}", label))


def _summary(name: str, summary: TrainSummary) -> SummaryRow:
    return SummaryRow(
        name=name,
        seconds=format_duration(summary.seconds, short=True),
        steps=f"{summary.steps:,}" + ("" if summary.kept == summary.steps else f", weights of step {summary.kept:,}"),
        tokens=f"{format_large(summary.tokens)}, of which {format_large(summary.supervised_tokens)} in answers",
    )
