"""Means over tokens of sampled rows, with intervals over the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from potstill.core.stats.beta import t_quantile
from potstill.core.stats.intervals import Interval, tail_of

__all__ = ["ratio_interval"]

_RESAMPLES = 2000
Floats = NDArray[np.float64]


def ratio_interval(sums: Sequence[float], counts: Sequence[int], confidence: float) -> Interval:
    """Two-sided interval of sum(sums)/sum(counts), the mean per token of rows with these numbers of tokens.

    Each end is the wider one of Student's t and of the studentized bootstrap over whole rows (2,000 resamples, fixed
    seed). For the upper end, the row that raises the mean the most counts once more, and for the lower end the one that
    lowers it the most: as in the exact interval of a rate, the next row may be another one like it. Without it, the
    interval of a mean that a few rows dominate misses far too often.

    Source: the standard error of a ratio, Cochran (1977), Sampling Techniques, section 6.4; the studentized bootstrap,
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5.

    Raises:
        ValueError: no row, sequences of different lengths, or confidence out of range.
    """
    tail = tail_of(confidence)
    totals, sizes = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if not len(totals) or totals.shape != sizes.shape:
        raise ValueError(f"needs one count for each of at least one sum, got {len(sizes)} and {len(totals)}")
    if len(totals) < 2 or not np.isfinite(totals).all():
        return Interval(-np.inf, np.inf)
    return Interval(-_upper(-totals, sizes, tail), _upper(totals, sizes, tail))


def _upper(sums_R: Floats, counts_R: Floats, tail: float) -> float:
    """Upper end that misses with probability `tail`."""
    worst = int((sums_R - sums_R.sum() / counts_R.sum() * counts_R).argmax())
    sums_R, counts_R = np.append(sums_R, sums_R[worst]), np.append(counts_R, counts_R[worst])
    mean, error = (float(values[0]) for values in _estimates(sums_R[None], counts_R[None]))
    drawn_BR = np.random.default_rng(0).integers(len(sums_R), size=(_RESAMPLES, len(sums_R)))
    means_B, errors_B = _estimates(sums_R[drawn_BR], counts_R[drawn_BR])
    usable_B = errors_B > 1e-9 * error
    if error == 0 or not usable_B.any():
        return mean
    distances_B = (mean - means_B[usable_B]) / errors_B[usable_B]
    reach = max(t_quantile(1 - tail, len(sums_R) - 2), float(np.quantile(distances_B, 1 - tail)))
    return mean + reach * error


def _estimates(sums_BR: Floats, counts_BR: Floats) -> tuple[Floats, Floats]:
    """Ratio and its standard error in each of B samples of R rows."""
    tokens_B = counts_BR.sum(axis=1)
    means_B = sums_BR.sum(axis=1) / tokens_B
    rest_BR = sums_BR - means_B[:, None] * counts_BR
    rows = sums_BR.shape[1]
    return means_B, np.sqrt((rest_BR**2).sum(axis=1) * rows / (rows - 1)) / tokens_B
