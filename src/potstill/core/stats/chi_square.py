"""The chi-square test of two samples of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["chi_square_tail", "counts_p_value"]

_FEWEST = 5.0
"""Smallest expected count of a cell; cells with fewer are added up, because the statistic is not chi-square there."""


def chi_square_tail(x: float, df: int) -> float:
    """P(X >= x) for a chi-square variable with df degrees of freedom.

    Source: Abramowitz and Stegun (1964), 26.4.4 and 26.4.5: finite sums for whole degrees of freedom.

    Raises:
        ValueError: x is negative, or df is below 1.
    """
    if x < 0 or df < 1:
        raise ValueError(f"needs x >= 0 and df >= 1, got x={x}, df={df}")
    half = x / 2
    if df % 2:
        tail, term = math.erfc(math.sqrt(half)), math.sqrt(half / math.pi) * 2 * math.exp(-half)
        steps = [2 * j + 1 for j in range(1, (df - 1) // 2 + 1)]
    else:
        tail, term = 0.0, math.exp(-half)
        steps = [2 * j for j in range(1, df // 2 + 1)]
    terms = []
    for step in steps:
        terms.append(term)
        term *= x / step
    return min(1.0, tail + math.fsum(terms))


def counts_p_value(first: Sequence[int], second: Sequence[int]) -> float:
    """p-value of two samples of counts having the same distribution; 1 where there is too little to compare.

    Cells in which either sample has an expected count below 5 are added up, the rarest first.

    Source: Pearson's two-sample statistic, sum (sqrt(N2/N1) a - sqrt(N1/N2) b)^2 / (a + b).

    Raises:
        ValueError: sequences of different lengths, or a negative count.
    """
    cells = sorted(zip(first, second, strict=True), key=sum)
    if any(count < 0 for cell in cells for count in cell):
        raise ValueError("a count is negative")
    n_first, n_second = sum(first), sum(second)
    share = min(n_first, n_second) / max(n_first + n_second, 1)
    merged: list[tuple[int, int]] = []
    a = b = 0
    for in_first, in_second in cells:
        a, b = a + in_first, b + in_second
        if share * (a + b) >= _FEWEST:
            merged.append((a, b))
            a = b = 0
    if (a or b) and merged:
        merged[-1] = (merged[-1][0] + a, merged[-1][1] + b)
    if len(merged) < 2:
        return 1.0
    ratio = math.sqrt(n_second / n_first)
    statistic = math.fsum((ratio * a - b / ratio) ** 2 / (a + b) for a, b in merged)
    return chi_square_tail(statistic, len(merged) - 1)
