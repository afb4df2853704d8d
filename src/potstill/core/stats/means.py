"""The mean of a few numbers: Student's t interval, and the two-sided p-value of no difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from potstill.core.stats.beta import beta_cdf, t_quantile
from potstill.core.stats.intervals import Interval, tail_of

__all__ = ["mean_interval", "mean_p_value"]


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """Student's t interval of the mean; everything with fewer than two values.

    Source: Student (1908), Biometrika 6:1-25.

    Raises:
        ValueError: confidence is not between 0 and 1.
    """
    tail = tail_of(confidence)
    if len(values) < 2:
        return Interval(-math.inf, math.inf)
    mean, error = _mean_and_error(values)
    reach = t_quantile(1 - tail, len(values) - 1) * error
    return Interval(mean - reach, mean + reach)


def mean_p_value(values: Sequence[float]) -> float:
    """Two-sided p-value of a mean of 0 (Student's t test); 1 with fewer than two values."""
    if len(values) < 2:
        return 1.0
    mean, error = _mean_and_error(values)
    if error == 0:
        return 0.0 if mean else 1.0
    df = len(values) - 1
    return beta_cdf(df / (df + (mean / error) ** 2), df / 2, 0.5)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)
