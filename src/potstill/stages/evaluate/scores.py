"""From judged answers to scores: rates, comparisons of two models, and regressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.metrics import (
    Fidelity,
    ModelMetrics,
    PairedCounts,
    Rate,
    ReadingExample,
    Readings,
    Regression,
)
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
) -> ModelMetrics:
    """Metrics of one model: exact match of all rows and by behaviour, schema validity, size and fidelity."""
    judged = [(answer.behaviour, answer.exact) for answer in answers if answer.exact is not None]
    behaviours = {b: Rate.of([exact for behaviour, exact in judged if behaviour == b]) for b in BEHAVIOURS}
    return ModelMetrics(
        params=size.params,
        bytes=size.bytes,
        format=size.format,
        exact=Rate.of([exact for _, exact in judged]),
        behaviours={b: rate for b, rate in behaviours.items() if rate is not None},
        schema_valid=Rate.of([a.schema_valid for a in answers if a.schema_valid is not None]),
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


def paired_counts(first: Sequence[JudgedAnswer], second: Sequence[JudgedAnswer]) -> PairedCounts:
    """Items that `first` broke or fixed compared with `second`, of those that can be judged."""
    pairs = [
        (a.exact, b.exact) for a, b in zip(first, second, strict=True) if a.exact is not None and b.exact is not None
    ]
    broken, fixed = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    return PairedCounts(broken=broken, fixed=fixed, n=len(pairs))


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
