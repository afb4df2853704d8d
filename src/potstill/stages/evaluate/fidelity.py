"""How close a model's distributions are to the teacher's, on the teacher's own text, at temperature 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.core.artifacts.metrics import Fidelity

__all__ = ["Array", "fidelity"]

Array = NDArray[np.floating[Any]]
_RESAMPLES = 2000


def fidelity(pairs: Iterable[tuple[Array, Array]], lower_bound: bool = False) -> Fidelity:
    """Compare pairs of log-probabilities (S, V) at the same positions, the teacher's first.

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
    """95 % percentile-bootstrap interval of the mean over tokens; whole rows are resampled, with a fixed seed."""
    sums, counts = np.array([r.sum() for r in rows], dtype=np.float64), np.array([len(r) for r in rows])
    drawn = np.random.default_rng(0).integers(len(rows), size=(_RESAMPLES, len(rows)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
