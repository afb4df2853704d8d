"""How close a model's distributions are to its teacher's, on the teacher's own text (teacher-forced, temperature 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fidelity", "fidelity"]

Array = NDArray[np.floating[Any]]
_RESAMPLES = 2000


@dataclass(frozen=True)
class Fidelity:
    """KL in nats per token, forward (teacher to student); `top1_agreement` in [0, 1]; over `tokens` positions.

    `_low` and `_high` are 95 % percentile-bootstrap intervals that draw whole rows: tokens of one row are not
    independent.
    `lower_bound` says that the other side gave only part of its distribution, so that the KL is at least this.
    """

    kl_mean: float
    kl_p99: float
    top1_agreement: float
    kl_low: float
    kl_high: float
    top1_low: float
    top1_high: float
    tokens: int
    lower_bound: bool = False

    def to_json(self) -> dict[str, float | int | bool]:
        return asdict(self)


def fidelity(pairs: Iterable[tuple[Array, Array]], lower_bound: bool = False) -> Fidelity:
    """Compare log-probabilities (S, V), teacher's first, of the same positions.

    A probability of zero on the student's side (log -inf) where the teacher has mass gives an infinite KL: it is not
    hidden.
    """
    divergences, agreements = [], []
    for teacher_SV, other_SV in pairs:
        log_p, log_q = np.asarray(teacher_SV, dtype=np.float64), np.asarray(other_SV, dtype=np.float64)
        p = np.exp(log_p)
        with np.errstate(invalid="ignore"):
            terms = np.where(p > 0, p * (log_p - log_q), 0.0)
        divergences.append(terms.sum(axis=-1))
        agreements.append(log_p.argmax(-1) == log_q.argmax(-1))
    kl = np.concatenate(divergences)
    kl_low, kl_high = _row_interval(divergences)
    top1_low, top1_high = _row_interval(agreements)
    return Fidelity(
        kl_mean=float(kl.mean()),
        kl_p99=float(np.quantile(kl, 0.99)),
        top1_agreement=float(np.concatenate(agreements).mean()),
        kl_low=kl_low,
        kl_high=kl_high,
        top1_low=top1_low,
        top1_high=top1_high,
        tokens=len(kl),
        lower_bound=lower_bound,
    )


def _row_interval(rows: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean over tokens, rows drawn with replacement (fixed seed)."""
    sums, counts = np.array([r.sum() for r in rows], dtype=np.float64), np.array([len(r) for r in rows])
    drawn = np.random.default_rng(0).integers(len(rows), size=(_RESAMPLES, len(rows)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
