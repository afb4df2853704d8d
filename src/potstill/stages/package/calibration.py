"""The section of a model card on how well the model's confidence agrees with how often it is right."""

from __future__ import annotations

from potstill.core.artifacts.calibration import (
    ANSWER_CONFIDENCE,
    CALIBRATION_COLUMNS,
    CALIBRATION_LEAD,
    CLASS_CONFIDENCE,
)
from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics
from potstill.stages.package import markdown

__all__ = ["calibration_section"]


def calibration_section(metrics: Metrics | ClassifierMetrics) -> str:
    """A table with a line for each model; empty where no answer is right or wrong."""
    if not metrics.calibration:
        return ""
    confidence = CLASS_CONFIDENCE
    if isinstance(metrics, Metrics):
        confidence = f"{ANSWER_CONFIDENCE} It was measured on the checkpoints, not on the file."
    table = markdown.table(CALIBRATION_COLUMNS, (found.cells() for found in metrics.calibration))
    difference = metrics.paired.student_vs_control_brier
    parts = ["## Confidence", f"{confidence} {CALIBRATION_LEAD}", table]
    return "\n\n".join([*parts, difference.sentence(metrics.confidence)] if difference else parts)
