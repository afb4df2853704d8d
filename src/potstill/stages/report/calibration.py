"""How well each model's confidence agrees with how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.artifacts.calibration import (
    ANSWER_CONFIDENCE,
    CALIBRATION_COLUMNS,
    CALIBRATION_LEAD,
    CLASS_CONFIDENCE,
)
from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics
from potstill.stages.report.text import capital, unbroken

__all__ = ["CalibrationSection", "calibration_section"]


@dataclass(frozen=True)
class CalibrationSection:
    """A table with a line for each model; `comparison` is of student and control, and empty without a control."""

    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    comparison: str


def calibration_section(metrics: Metrics | ClassifierMetrics) -> CalibrationSection | None:
    """The section; None where no answer is right or wrong."""
    if not metrics.calibration:
        return None
    confidence = ANSWER_CONFIDENCE if isinstance(metrics, Metrics) else CLASS_CONFIDENCE
    found = metrics.paired.student_vs_control_brier
    return CalibrationSection(
        lead=f"{confidence} {CALIBRATION_LEAD}",
        columns=[capital(title) for title in CALIBRATION_COLUMNS],
        rows=[[capital(name), *map(unbroken, cells)] for name, *cells in (c.cells() for c in metrics.calibration)],
        comparison=unbroken(found.sentence(metrics.confidence)) if found else "",
    )
