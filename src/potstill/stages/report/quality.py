"""What the student kept and lost: exact matches by behaviour, and the worst regressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.core.artifacts.metrics import ModelMetrics, PairedCounts, Rate
from potstill.core.format import format_interval, format_level, format_points, format_points_interval
from potstill.stages.report.charts import rates_chart
from potstill.stages.report.differences import mark_differences
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import BEHAVIOURS, MODELS, RateCell, percent, shorten, unbroken

__all__ = [
    "Case",
    "Change",
    "ModelKey",
    "QualitySection",
    "RateRow",
    "quality_section",
    "regressions_section",
]

_ALL = "all"
_MAX_PROMPT = 400  # characters


@dataclass(frozen=True)
class ModelKey:
    """An entry of a chart's legend."""

    key: str
    name: str


@dataclass(frozen=True)
class RateRow:
    """Rates of all models for one behaviour; None for a model without such rows."""

    name: str
    cells: Sequence[RateCell | None]
    total: bool


@dataclass(frozen=True)
class Change:
    """Teacher and shipped file for one behaviour, and the difference in percentage points."""

    name: str
    teacher: str | None
    shipped: str
    change: str | None
    total: bool


@dataclass(frozen=True)
class QualitySection:
    """Exact matches by behaviour.

    comparisons   sentences that compare the shipped file with another model on the same items
    """

    models: Sequence[ModelKey]
    rows: Sequence[RateRow]
    changes: Sequence[Change]
    chart: Markup
    comparisons: Sequence[str]


@dataclass(frozen=True)
class Case:
    """A regression, with the differences of both answers marked."""

    row_id: str
    behaviour: str
    prompt: str
    teacher: Markup
    student: Markup
    expected: str


def quality_section(facts: Facts) -> QualitySection | None:
    """Chart and tables of exact matches by behaviour; None when the test rows do not say what is right."""
    present = {name: model for name, model in facts.metrics.models.present() if model.exact}
    shipped = present.get("gguf")
    if shipped is None:
        return None
    behaviours = [*shipped.behaviours, *([_ALL] if len(shipped.behaviours) != 1 else [])]
    groups: dict[str, dict[str, Rate]] = {}
    rows = []
    for behaviour in behaviours:
        found = {name: _rate(model, behaviour) for name, model in present.items()}
        rates: dict[str, Rate] = {name: rate for name, rate in found.items() if rate}
        groups[f"{_title(behaviour)} ({rates['gguf'].n})"] = rates
        cells = [RateCell(rate) if rate else None for rate in found.values()]
        rows.append(RateRow(_title(behaviour), cells, behaviour == _ALL))
    label = "Share of test items answered right. " + " ".join(
        f"{title}: " + ", ".join(f"{MODELS[m].lower()} {percent(r.rate)}" for m, r in group.items()) + "."
        for title, group in groups.items()
    )
    paired = facts.metrics.paired
    level = facts.metrics.confidence
    comparisons = (
        _kept(paired.gguf_vs_teacher, level),
        _comparison(paired.gguf_vs_teacher, "the teacher", level),
        _comparison(paired.gguf_vs_student, "the checkpoint that it was quantized from", level),
    )
    return QualitySection(
        models=[ModelKey(name, MODELS[name]) for name in present],
        rows=rows,
        changes=[_change(present.get("teacher"), shipped, behaviour) for behaviour in behaviours],
        chart=rates_chart(groups, label),
        comparisons=[sentence for sentence in comparisons if sentence],
    )


def _title(behaviour: str) -> str:
    return "All rows" if behaviour == _ALL else BEHAVIOURS.get(behaviour, behaviour)


def _rate(model: ModelMetrics, behaviour: str) -> Rate | None:
    return model.exact if behaviour == _ALL else model.behaviours.get(behaviour)


def _change(teacher: ModelMetrics | None, shipped: ModelMetrics, behaviour: str) -> Change:
    before, after = _rate(teacher, behaviour) if teacher else None, _rate(shipped, behaviour)
    assert after
    points = format_points(after.rate - before.rate).replace("-", "\N{MINUS SIGN}") if before else None
    return Change(
        name=_title(behaviour),
        teacher=percent(before.rate) if before else None,
        shipped=percent(after.rate),
        change=points,
        total=behaviour == _ALL,
    )


def _kept(found: PairedCounts | None, level: float) -> str | None:
    if found is None or found.kept is None:
        return None
    kept = found.kept
    return unbroken(
        f"Of the teacher's {kept.n:,} right answers, the shipped file keeps {kept.k:,} ({percent(kept.rate)}, "
        f"{format_level(level)} interval {format_interval(kept.low, kept.high, 'rate')}) and loses "
        f"{found.broken:,}. It gets {found.fixed:,} right that the teacher gets wrong."
    )


def _comparison(found: PairedCounts | None, other: str, level: float) -> str | None:
    if found is None:
        return None
    gain = format_points_interval(found.gain, found.low, found.high, level)
    return unbroken(
        f"Compared with {other} on the same {found.n:,} items: {found.broken:,} lost, {found.fixed:,} gained, "
        f"{gain}: {found.word}."
    )


def regressions_section(facts: Facts) -> list[Case]:
    """Items that the teacher answered right and the shipped file did not, with differences marked."""
    out = []
    for item in facts.metrics.regressions:
        teacher, student = mark_differences(item.teacher, item.student)
        out.append(
            Case(
                row_id=item.row_id,
                behaviour=BEHAVIOURS.get(item.behaviour, item.behaviour),
                prompt=shorten(item.prompt, _MAX_PROMPT),
                teacher=teacher,
                student=student,
                expected=shorten(item.expected),
            )
        )
    return out
