"""Two models judged on the same n items.

    b   items that the first model got right and the second wrong (lost)
    c   items that the first model got wrong and the second right (gained)

The counts may be effective counts of clustered items, which need not be whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from potstill.core.stats.beta import at_least, z_quantile
from potstill.core.stats.intervals import Interval, tail_of
from potstill.core.stats.rates import rate_interval

__all__ = ["drop_p_value", "lowest_drop", "paired_interval", "paired_p_value"]


def paired_p_value(b: float, c: float) -> float:
    """Two-sided exact p-value of equal models: twice the smaller tail of Binomial(b + c, 1/2), and at most 1.

    `paired_interval` excludes 0 exactly when this is below 1 - confidence.

    Source: McNemar (1947), Psychometrika 12:153-157; the conditional exact form.

    Raises:
        ValueError: a negative count.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got b={b}, c={c}")
    return min(1.0, 2 * at_least(max(b, c), b + c, 0.5))


def drop_p_value(b: float, c: float) -> float:
    """One-sided exact p-value of "no drop": P(X >= b) for X ~ Binomial(b + c, 1/2).

    Source: as `paired_p_value`.

    Raises:
        ValueError: a negative count.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got b={b}, c={c}")
    return at_least(b, b + c, 0.5)


def paired_interval(b: float, c: float, n: float, confidence: float) -> Interval:
    """Two-sided interval of the drop (b - c)/n in the rate of right answers from the first to the second model.

    The interval is the smallest one that holds two others. The first is built from exact parts: the share b/(b + c),
    whose interval decides whether a difference is shown, and the share (b + c)/n, combined as Donner and Zou combine
    two independent estimates into their quotient. The second is Tango's score interval. Where few items differ, each of
    them alone misses the true value too often in some cases.

    Source: Donner and Zou (2012), Statistical Methods in Medical Research 21:347-359; Tango (1998), Statistics in
    Medicine 17:891-908.

    Raises:
        ValueError: counts or confidence out of range.
    """
    # Exchanging the models changes the sign of the drop, so the upper end is the mirrored lower end.
    return Interval(lowest_drop(b, c, n, confidence), -lowest_drop(c, b, n, confidence))


def lowest_drop(b: float, c: float, n: float, confidence: float) -> float:
    """The lower end of `paired_interval`."""
    if n <= 0 or b < 0 or c < 0 or b + c > n * (1 + 1e-12):
        raise ValueError(f"needs n > 0 and 0 <= b + c <= n, got b={b}, c={c}, n={n}")
    z = z_quantile(1 - tail_of(confidence))
    return max(-1.0, min(_combined_lower(b, c, n, confidence), -_tango_upper(c, b, n, z)))


def _combined_lower(b: float, c: float, n: float, confidence: float) -> float:
    """Lower end of (2 s - 1) m/n, from the intervals of s = b/m and of m/n, where m = b + c.

    The drop is balance / inverse with balance = 2 s - 1 and inverse = n/m. A value d is its lower end where the lower
    end of balance - d inverse is 0; that end is the estimate minus the root of the sum of squared distances.
    """
    m = b + c
    share = rate_interval(m, n, confidence)
    if m == 0:
        return -share.high
    balance, inverse = (b - c) / m, n / m
    least = 2 * rate_interval(b, m, confidence).low - 1
    if least == 0:
        return 0.0
    # the lower end of -d inverse takes the largest inverse for d > 0 and the smallest for d < 0
    reach = 1 / share.low - inverse if least > 0 else inverse - 1 / share.high
    square, constant = inverse**2 - reach**2, least * (2 * balance - least)
    root = math.sqrt(max(0.0, (balance * inverse) ** 2 - square * constant))
    return constant / (balance * inverse + root) if least > 0 else (balance * inverse - root) / square


def _tango_upper(b: float, c: float, n: float, z: float) -> float:
    """Largest drop d with (b - c - n d)^2 <= z^2 n (2 q + d (1 - d)); q estimates P(gain) under the drop d."""

    def inside(drop: float) -> bool:
        q = _larger_root(2 * n, (2 * n - b + c) * drop - b - c, -c * drop * (1 - drop))
        return (b - c - n * drop) ** 2 <= z * z * n * (2 * q + drop * (1 - drop))

    return 1.0 if b >= n else _bisect(inside, (b - c) / n, 1.0)


def _bisect(inside: Callable[[float], bool], low: float, high: float) -> float:
    """The edge between `low`, where `inside` holds, and `high`, where it does not."""
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


def _larger_root(a: float, b: float, c: float) -> float:
    """Larger root of a x^2 + b x + c for a > 0, never below 0; written so that nothing cancels."""
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, -2 * c / (b + root) if b > 0 else (root - b) / (2 * a))
