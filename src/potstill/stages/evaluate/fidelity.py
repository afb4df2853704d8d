"""How close a model's distributions are to the teacher's, on the teacher's own text, at temperature 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.core.artifacts.metrics import Fidelity, FidelityDifference
from potstill.core.stats import effective_items, rate_interval
from potstill.stages.evaluate.means import ratio_interval

__all__ = ["Array", "Divergences", "fidelity", "fidelity_difference"]

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Divergences:
    """At the tokens of each row: KL divergence (nats) from the teacher, and whether the likeliest token is the same."""

    kl: Sequence[Array]
    agree: Sequence[NDArray[np.bool_]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Array, Array]]) -> Divergences:
        """From pairs of log-probabilities (S, V) at the same positions, the teacher's first, one pair per row.

        Where the teacher gives a token some probability and the model gives it none (log -inf), the KL is infinite.
        """
        divergences, agreements = [], []
        for teacher_SV, other_SV in pairs:
            log_p, log_q = np.asarray(teacher_SV, dtype=np.float64), np.asarray(other_SV, dtype=np.float64)
            p = np.exp(log_p)
            with np.errstate(invalid="ignore"):
                terms = np.where(p > 0, p * (log_p - log_q), 0.0)
            divergences.append(terms.sum(axis=-1))
            agreements.append(log_p.argmax(-1) == log_q.argmax(-1))
        return cls(divergences, agreements)

    @property
    def row_sums(self) -> list[float]:
        """Total KL of each row."""
        return [float(row.sum()) for row in self.kl]

    @property
    def row_tokens(self) -> list[int]:
        """Number of tokens of each row."""
        return [len(row) for row in self.kl]


def fidelity(found: Divergences, confidence: float, lower_bound: bool = False) -> Fidelity:
    """Means over all tokens, with intervals over rows, because tokens of one row are not independent."""
    kl, agree = np.concatenate(found.kl), np.concatenate(found.agree)
    interval = ratio_interval(found.row_sums, found.row_tokens, confidence)
    rows = [number for number, tokens in enumerate(found.row_tokens) for _ in range(tokens)]
    effective = effective_items(agree.astype(float).tolist(), rows, confidence)
    top1 = rate_interval(float(agree.mean()) * effective, effective, confidence)
    return Fidelity(
        kl_mean=float(kl.mean()),
        kl_p99=float(np.quantile(kl, 0.99)),
        top1_agreement=float(agree.mean()),
        kl_low=max(0.0, interval.low),
        kl_high=interval.high if math.isfinite(interval.high) else None,
        top1_low=top1.low,
        top1_high=top1.high,
        tokens=len(kl),
        rows=len(found.kl),
        lower_bound=lower_bound,
    )


def fidelity_difference(first: Divergences, second: Divergences, confidence: float) -> FidelityDifference | None:
    """Mean KL of the first model minus the second's, on the same tokens; None where the rows are too few."""
    sums = [a - b for a, b in zip(first.row_sums, second.row_sums, strict=True)]
    interval = ratio_interval(sums, first.row_tokens, confidence)
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return None
    return FidelityDifference(kl=sum(sums) / sum(first.row_tokens), low=interval.low, high=interval.high)
