"""One rate: k of n items are right."""

from __future__ import annotations

import math

from potstill.core.stats.beta import at_least, beta_quantile
from potstill.core.stats.intervals import Interval, tail_of

__all__ = ["rate_interval", "rate_p_value"]


def rate_interval(k: float, n: float, confidence: float) -> Interval:
    """Exact two-sided interval of a rate, k right out of n; [0, 1] when n is 0.

    Each end misses with a probability of at most (1 - confidence)/2, whatever the rate and however few items there are.
    Effective counts of clustered items need not be whole numbers.

    Source: Clopper and Pearson (1934), Biometrika 26:404-413; with effective counts, Korn and Graubard (1998), Survey
    Methodology 24:193-201.

    Raises:
        ValueError: not 0 <= k <= n, or confidence not between 0 and 1.
    """
    tail = tail_of(confidence)
    k = n if math.isclose(k, n, rel_tol=1e-9) else k  # effective counts are rounded
    if not 0 <= k <= n:
        raise ValueError(f"needs 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return Interval(0.0, 1.0)
    low = beta_quantile(tail, k, n - k + 1) if k > 0 else 0.0
    high = beta_quantile(1 - tail, k + 1, n - k) if k < n else 1.0
    return Interval(low, high)


def rate_p_value(k: float, n: float, rate: float) -> float:
    """Two-sided exact p-value of a rate: twice the smaller binomial tail, and at most 1.

    `rate_interval` excludes the rate exactly when this is below 1 - confidence.
    """
    return min(1.0, 2 * min(at_least(k, n, rate), 1 - at_least(k + 1, n, rate)))
