"""Means over tokens of sampled rows, with intervals over the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from potstill.core.stats.beta import t_quantile
from potstill.core.stats.intervals import Interval, tail_of

__all__ = ["by_group", "finite_ends", "ratio_interval"]

_RESAMPLES = 2000
_ELEMENTS = 1 << 20  # of an array of resampled rows
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


def by_group(
    values: Sequence[float], weights: Sequence[int], groups: Sequence[str | None]
) -> tuple[list[float], list[int]]:
    """Sums of the values and of the weights of each group; a row without a group is one of its own."""
    sums: dict[object, float] = {}
    sizes: dict[object, int] = {}
    for number, (value, weight, group) in enumerate(zip(values, weights, groups, strict=True)):
        key = number if group is None else group
        sums[key] = sums.get(key, 0.0) + value
        sizes[key] = sizes.get(key, 0) + weight
    return list(sums.values()), list(sizes.values())


def finite_ends(interval: Interval) -> tuple[float | None, float | None]:
    """Lower and upper end; None for an infinite one."""
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return low, high


def _upper(sums_R: Floats, counts_R: Floats, tail: float) -> float:
    """Upper end that misses with probability `tail`."""
    worst = int((sums_R - sums_R.sum() / counts_R.sum() * counts_R).argmax())
    sums_R, counts_R = np.append(sums_R, sums_R[worst]), np.append(counts_R, counts_R[worst])
    mean, error = (float(values[0]) for values in _estimates(sums_R[None], counts_R[None]))
    means_B, errors_B = _resampled(sums_R, counts_R)
    usable_B = errors_B > 1e-9 * error
    if error == 0 or not usable_B.any():
        return mean
    distances_B = (mean - means_B[usable_B]) / errors_B[usable_B]
    reach = max(t_quantile(1 - tail, len(sums_R) - 2), float(np.quantile(distances_B, 1 - tail)))
    return mean + reach * error


def _resampled(sums_R: Floats, counts_R: Floats) -> tuple[Floats, Floats]:
    """`_estimates` of all resamples, a few at a time, so that many rows do not take much memory."""
    rng, rows = np.random.default_rng(0), len(sums_R)
    step = max(1, _ELEMENTS // rows)
    found = []
    for start in range(0, _RESAMPLES, step):
        drawn_BR = rng.integers(rows, size=(min(step, _RESAMPLES - start), rows))
        found.append(_estimates(sums_R[drawn_BR], counts_R[drawn_BR]))
    means, errors = zip(*found, strict=True)
    return np.concatenate(means), np.concatenate(errors)


def _estimates(sums_BR: Floats, counts_BR: Floats) -> tuple[Floats, Floats]:
    """Ratio and its standard error in each of B samples of R rows."""
    tokens_B = counts_BR.sum(axis=1)
    means_B = sums_BR.sum(axis=1) / tokens_B
    rest_BR = sums_BR - means_B[:, None] * counts_BR
    rows = sums_BR.shape[1]
    return means_B, np.sqrt((rest_BR**2).sum(axis=1) * rows / (rows - 1)) / tokens_B
