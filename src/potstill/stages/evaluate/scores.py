"""From judged answers to scores: rates, comparisons of two models, and regressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.metrics import (
    Fidelity,
    ModelMetrics,
    PairedCounts,
    Rate,
    Regression,
)
from potstill.core.artifacts.readings import ReadingExample, Readings
from potstill.core.records import BEHAVIOURS

__all__ = ["NO_SIZE", "ModelSize", "model_metrics", "paired_counts", "readings_of", "regressions"]

_MAX_REGRESSIONS = 10


class ModelSize(NamedTuple):
    """Size of a model's files and their number format; None where they are not known."""

    params: int | None
    bytes: int | None
    format: str | None


NO_SIZE = ModelSize(None, None, None)


def model_metrics(
    answers: Sequence[JudgedAnswer],
    size: ModelSize = NO_SIZE,
    fidelity: Fidelity | None = None,
    readings: Readings | None = None,
    *,
    confidence: float,
) -> ModelMetrics:
    """Metrics of one model: exact match of all rows, by behaviour and by tool, kinds of errors, size and fidelity."""
    judged = [answer for answer in answers if answer.exact is not None]

    def rate(found: Sequence[JudgedAnswer]) -> Rate | None:
        return Rate.of([bool(a.exact) for a in found], [a.group for a in found], confidence)

    behaviours = {b: rate([answer for answer in judged if answer.behaviour == b]) for b in BEHAVIOURS}
    tools = {tool for answer in judged for tool in answer.tools}
    with_schema = [answer for answer in answers if answer.schema_valid is not None]
    return ModelMetrics(
        params=size.params,
        bytes=size.bytes,
        format=size.format,
        exact=rate(judged),
        behaviours={b: found for b, found in behaviours.items() if found is not None},
        schema_valid=Rate.of([bool(a.schema_valid) for a in with_schema], [a.group for a in with_schema], confidence),
        tools={tool: found for tool in sorted(tools) if (found := rate([a for a in judged if tool in a.tools]))},
        errors=dict(Counter(answer.error for answer in judged if answer.error)),
        fidelity=fidelity,
        readings=readings,
    )


def readings_of(answers: Sequence[JudgedAnswer]) -> Readings:
    """How the chat endpoint read the answers of the shipped file."""
    other = [
        ReadingExample(row_id=a.row_id, prompt=a.prompt, text=a.text, served=a.served)
        for a in answers
        if a.served is not None
    ]
    return Readings(answers=len(answers), different=len(other), example=other[0] if other else None)


def paired_counts(
    first: Sequence[JudgedAnswer], second: Sequence[JudgedAnswer], confidence: float
) -> PairedCounts | None:
    """Two models on the items that can be judged; None without such items."""
    pairs = [
        (a.exact, b.exact, a.group)
        for a, b in zip(first, second, strict=True)
        if a.exact is not None and b.exact is not None
    ]
    return PairedCounts.of(
        [a for a, _, _ in pairs], [b for _, b, _ in pairs], [group for _, _, group in pairs], confidence
    )


def regressions(teacher: Sequence[JudgedAnswer], shipped: Sequence[JudgedAnswer]) -> tuple[Regression, ...]:
    """Up to ten rows that the teacher answered right and the shipped file did not.

    Answers with broken tool-call syntax come first, then those that break a tool's schema.
    """
    lost = [(t, s) for t, s in zip(teacher, shipped, strict=True) if t.exact and not s.exact]
    lost.sort(key=lambda pair: (pair[1].parses, pair[1].schema_valid is not False))
    return tuple(
        Regression(
            row_id=t.row_id, behaviour=t.behaviour, prompt=t.prompt, teacher=t.text, student=s.text, expected=t.expected
        )
        for t, s in lost[:_MAX_REGRESSIONS]
    )
