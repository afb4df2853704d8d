"""Sample quantiles and their exact intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from potstill.core.stats.beta import at_least
from potstill.core.stats.intervals import Interval, tail_of

__all__ = ["quantile", "quantile_interval"]


def quantile(values: Sequence[float], q: float) -> float:
    """Sample quantile, linear between order statistics (numpy's default).

    Source: Hyndman and Fan (1996), The American Statistician 50:361-365, type 7.

    Raises:
        ValueError: no value, a NaN, or q outside [0, 1].
    """
    ordered = _ordered(values, q)
    position = q * (len(values) - 1)
    lower = math.floor(position)
    low, high, fraction = ordered[lower], ordered[min(lower + 1, len(ordered) - 1)], position - lower
    return low if fraction == 0 or low == high else low + fraction * (high - low)


def quantile_interval(values: Sequence[float], q: float, confidence: float) -> Interval:
    """Exact two-sided interval of a quantile, from two of the values; an end is infinite where there are too few.

    The number of values below the quantile follows Binomial(n, q), whatever their distribution is, so each end misses
    with a probability of at most (1 - confidence)/2.

    Source: Thompson (1936), Annals of Mathematical Statistics 7:122-128.

    Raises:
        ValueError: no value, a NaN, q outside [0, 1], or confidence not between 0 and 1.
    """
    ordered, tail = _ordered(values, q), tail_of(confidence)
    n = len(ordered)
    # The r-th value is above the quantile when fewer than r values are below it.
    lower = max((r for r in range(1, n + 1) if 1 - at_least(r, n, q) <= tail), default=0)
    upper = min((r for r in range(1, n + 1) if at_least(r, n, q) <= tail), default=n + 1)
    return Interval(
        ordered[lower - 1] if lower else -math.inf,
        ordered[upper - 1] if upper <= n else math.inf,
    )


def _ordered(values: Sequence[float], q: float) -> list[float]:
    if not values:
        raise ValueError("a quantile needs at least one value")
    if any(math.isnan(value) for value in values):
        raise ValueError("a quantile of NaN is not defined")
    if not 0 <= q <= 1:
        raise ValueError(f"q must be between 0 and 1, got {q}")
    return sorted(values)
