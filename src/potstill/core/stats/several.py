"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from potstill.core.stats.beta import z_quantile
from potstill.core.stats.intervals import tail_of

__all__ = ["holm", "p_value_from_interval"]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them at once, in the order given (step-down, any dependence).

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70.

    Raises:
        ValueError: a value outside [0, 1].
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value must be between 0 and 1, got {p}")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def p_value_from_interval(
    value: float | None, low: float | None, high: float | None, threshold: float, confidence: float
) -> float:
    """Two-sided p-value of the threshold, from an estimate's interval that excludes it; 0 for an infinite estimate.

    The distance from the estimate to its end on the side of the threshold stands for z standard errors.
    """
    end = low if value is None or threshold < value else high
    if value is None or end is None:
        return 0.0
    z = z_quantile(1 - tail_of(confidence))
    reach = abs(value - end)
    return 2 * NormalDist().cdf(-z * abs(value - threshold) / reach) if reach else 0.0
