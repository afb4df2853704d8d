"""Intervals and paired tests behind the gates: pure functions, each with its source.

Legend for two models judged on the same n items:

    b   items the first got right and the second wrong (a drop)
    c   items the first got wrong and the second right (a gain)
    a   items both got right

Nothing here draws at random without a seed, and nothing needs more than the standard library.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = [
    "Interval",
    "bootstrap_median",
    "bootstrap_quantile",
    "holm",
    "items_to_decide",
    "mcnemar_exact",
    "paired_drop",
    "paired_drop_interval",
    "paired_ratio_interval",
    "quantile",
    "wilson",
    "wilson_lower",
    "wilson_upper",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, ends included; `high` may be infinite for a ratio."""

    low: float
    high: float


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided score interval of a rate, k right out of n; [0, 1] when n is 0.

    Source: Wilson (1927), JASA 22:209-212; Newcombe (1998), Statistics in Medicine 17:857-872, method 3.

    Raises:
        ValueError: not 0 <= k <= n, or confidence not between 0 and 1.
    """
    z = _two_sided_z(confidence)
    return Interval(_wilson_end(k, n, -z), _wilson_end(k, n, z))


def wilson_lower(k: int, n: int, alpha: float) -> float:
    """One-sided lower bound of a rate: the least rate that a score test at level alpha does not reject.

    At least p0 (for 0 < p0 < 1) exactly when k/n - p0 >= z sqrt(p0 (1 - p0) / n). 0 when n is 0.
    The level is approximate: below 50 items the true error can pass alpha (0.069 for 0.05 at n = 50, worst case).

    Source: as `wilson`.

    Raises:
        ValueError: not 0 <= k <= n, or alpha not between 0 and 1.
    """
    return _wilson_end(k, n, -_one_sided_z(alpha))


def wilson_upper(k: int, n: int, alpha: float) -> float:
    """One-sided upper bound of a rate; the mirror of `wilson_lower`. 1 when n is 0."""
    return _wilson_end(k, n, _one_sided_z(alpha))


def mcnemar_exact(b: int, c: int) -> float:
    """One-sided exact p-value that the second model is worse: P(X >= b) for X ~ Binomial(b + c, 1/2).

    1 when no item tells the two apart. Swap the arguments to ask whether the second is better.

    Source: McNemar (1947), Psychometrika 12:153-157; the conditional exact form.

    Raises:
        ValueError: a negative count.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts must not be negative, got b={b}, c={c}")
    total = b + c
    # Whole numbers throughout: no rounding until the one division. The shorter tail is the one summed.
    ways = 1 << total
    tail = _binomial_tail(total, b) if b > c else ways - _binomial_tail(total, c + 1)
    return tail / ways


def paired_drop(b: int, c: int, n: int) -> tuple[float, float]:
    """Drop in the rate of right answers from first to second, D = (b - c)/n, and its standard error.

    SE = sqrt(((b + c)/n - D^2)/n), Wald's. It is 0 when b = c = 0: take `paired_drop_interval` for small b + c.

    Raises:
        ValueError: n is not positive, or b + c is not between 0 and n.
    """
    _check_pairs(b, c, n)
    drop = (b - c) / n
    return drop, math.sqrt(max(0.0, (b + c) / n - drop * drop) / n)


def paired_drop_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided score interval of the drop (b - c)/n; keeps its level when b + c is small or 0.

    A one-sided bound at level alpha is the end of the interval with confidence 1 - 2 alpha.

    Source: Tango (1998), Statistics in Medicine 17:891-908; recommended by Fagerland, Lydersen and Laake (2014),
    Statistics in Medicine 33:2850-2875.

    Raises:
        ValueError: counts or confidence out of range.
    """
    _check_pairs(b, c, n)
    z = _two_sided_z(confidence)
    # Exchanging the models changes the sign of the drop, so the lower end is the mirrored upper end.
    return Interval(-_tango_upper(c, b, n, z), _tango_upper(b, c, n, z))


def paired_ratio_interval(both: int, first_only: int, second_only: int, confidence: float = 0.95) -> Interval:
    """Two-sided score interval of (second right)/(first right) on the same items.

    Items that both got wrong carry no information on the ratio. [0, inf] when no item was right.

    Source: Nam and Blackwelder (2002), Statistics in Medicine 21:689-699, and Tang, Tang and Chan (2003), Statistics
    in Medicine 22:1217-1233; the maximum of the likelihood under a fixed ratio is solved here for P(first only).

    Raises:
        ValueError: counts or confidence out of range.
    """
    if min(both, first_only, second_only) < 0:
        raise ValueError(f"counts must not be negative, got {both}, {first_only}, {second_only}")
    z = _two_sided_z(confidence)
    upper = _ratio_upper(both, first_only, second_only, z)
    # The lower end is the reciprocal of the upper end for the models exchanged.
    exchanged = _ratio_upper(both, second_only, first_only, z)
    return Interval(0.0 if math.isinf(exchanged) else 1.0 / exchanged, upper)


def items_to_decide(b: int, c: int, n: int, margin: float, alpha: float, beta: float) -> int:
    """Items at which an unchanged model passes "drop below margin" with probability 1 - beta.

    (z_alpha + z_beta)^2 (b + c)/n / margin^2, and never less than the z^2 (1 - margin)/margin that the score interval
    needs when no item differs at all.

    Source: the normal approximation for a non-inferiority test of paired proportions at no true difference,
    Lu and Bean (1995), Statistics in Medicine 14:1831-1839.

    Raises:
        ValueError: counts, margin, alpha or beta out of range.
    """
    _check_pairs(b, c, n)
    if not 0 < margin < 1:
        raise ValueError(f"margin must be between 0 and 1, got {margin}")
    z = _one_sided_z(alpha)
    usual = (z + _one_sided_z(beta)) ** 2 * ((b + c) / n) / margin**2
    return max(math.ceil(usual), math.floor(z * z * (1 - margin) / margin) + 1)


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


def quantile(values: Sequence[float], q: float) -> float:
    """Sample quantile, linear between order statistics (numpy's default).

    Source: Hyndman and Fan (1996), The American Statistician 50:361-365, type 7.

    Raises:
        ValueError: no value, a NaN, or q outside [0, 1].
    """
    ordered, position = _ordered(values, q)
    lower = math.floor(position)
    upper = min(lower + 1, len(ordered) - 1)
    return _between(ordered[lower], ordered[upper], position - lower)


def bootstrap_median(values: Sequence[float], seed: int, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the median: see `bootstrap_quantile`."""
    return bootstrap_quantile(values, 0.5, seed, confidence)


def bootstrap_quantile(
    values: Sequence[float], q: float, seed: int, confidence: float = 0.95, resamples: int = 4000
) -> Interval:
    """Percentile bootstrap interval of a sample quantile, in the unit of `values`.

    A resample's order statistics are x[floor(n U)] at the order statistics U of n uniform draws, and those follow
    Beta laws; so each resample costs two Beta draws instead of n, with the same distribution.

    Source: Efron (1979), Annals of Statistics 7:1-26; David and Nagaraja (2003), Order Statistics, chapter 2.

    Raises:
        ValueError: no value, a NaN, q outside [0, 1], or confidence not between 0 and 1.
    """
    ordered, position = _ordered(values, q)
    tail = (1 - _checked(confidence, "confidence")) / 2
    n = len(ordered)
    rank = math.floor(position) + 1
    rng = random.Random(seed)
    estimates = []
    for _ in range(resamples):
        u = rng.betavariate(rank, n - rank + 1)
        v = u + (1 - u) * rng.betavariate(1, n - rank) if rank < n else u
        low, high = ordered[min(n - 1, int(n * u))], ordered[min(n - 1, int(n * v))]
        estimates.append(_between(low, high, position - (rank - 1)))
    return Interval(quantile(estimates, tail), quantile(estimates, 1 - tail))


def _checked(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return value


def _one_sided_z(alpha: float) -> float:
    return -NormalDist().inv_cdf(_checked(alpha, "alpha"))


def _two_sided_z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + _checked(confidence, "confidence")) / 2)


def _check_pairs(b: int, c: int, n: int) -> None:
    if n <= 0 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"needs n > 0 and 0 <= b + c <= n, got b={b}, c={c}, n={n}")


def _wilson_end(k: int, n: int, z: float) -> float:
    """The end of the score interval on the side of z's sign."""
    if not 0 <= k <= n:
        raise ValueError(f"needs 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return 0.0 if z < 0 else 1.0
    if (k == 0 and z <= 0) or (k == n and z >= 0):
        return k / n  # exact, where the formula would leave a rounding error outside [0, 1]
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (k + z * z / 2 + half) / (n + z * z)


def _binomial_tail(n: int, start: int) -> int:
    """Sum of C(n, i) for i from start to n, as a whole number."""
    term = math.comb(n, start) if start <= n else 0
    total = 0
    for i in range(start, n + 1):
        total += term
        term = term * (n - i) // (i + 1)
    return total


def _bisect(inside: Callable[[float], bool], low: float, high: float) -> float:
    """The edge between `low`, where `inside` holds, and `high`, where it does not."""
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


def _tango_upper(b: int, c: int, n: int, z: float) -> float:
    """Largest drop d with (b - c - n d)^2 <= z^2 n (2 q + d (1 - d)); q estimates P(gain) under the drop d."""

    def inside(drop: float) -> bool:
        q = _larger_root(2 * n, (2 * n - b + c) * drop - b - c, -c * drop * (1 - drop))
        return (b - c - n * drop) ** 2 <= z * z * n * (2 * q + drop * (1 - drop))

    return 1.0 if b == n else _bisect(inside, (b - c) / n, 1.0)


def _ratio_upper(both: int, first_only: int, second_only: int, z: float) -> float:
    """Largest ratio f with (x2 - f x1)^2 <= z^2 n f (p + q), x1 and x2 the right answers of first and second.

    Among the n items that someone got right, P(first) = 1 - q and P(second) = 1 - p with p = P(first only) and
    q = P(second only). The ratio f fixes q = 1 - (1 - p)/f, and a zero slope of the likelihood makes p the larger root
    of n (1 + f) p^2 + ((f^2 - 1) x1 - first_only - second_only) p - first_only (f - 1) = 0.
    """
    n = both + first_only + second_only
    x1, x2 = both + first_only, both + second_only
    if x1 == 0:
        return math.inf

    def inside(share: float) -> bool:
        f = share / (1 - share)  # the search is over f/(1 + f), which is bounded
        p = _larger_root(n * (1 + f), (f * f - 1) * x1 - first_only - second_only, -first_only * (f - 1))
        q = max(0.0, 1 - (1 - p) / f)
        return (x2 - f * x1) ** 2 <= z * z * n * f * (p + q)

    share = _bisect(inside, max(x2 / (x1 + x2), 1e-12), 1 - 1e-12)
    return share / (1 - share)


def _larger_root(a: float, b: float, c: float) -> float:
    """Larger root of a x^2 + b x + c for a > 0, never below 0; written so that nothing cancels."""
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return max(0.0, -2 * c / (b + root) if b > 0 else (root - b) / (2 * a))


def _ordered(values: Sequence[float], q: float) -> tuple[list[float], float]:
    """The values in order, and the place of quantile q among them, counted from 0."""
    if not values:
        raise ValueError("a quantile needs at least one value")
    if any(math.isnan(value) for value in values):
        raise ValueError("a quantile of NaN is not defined")
    if not 0 <= q <= 1:
        raise ValueError(f"q must be between 0 and 1, got {q}")
    return sorted(values), q * (len(values) - 1)


def _between(low: float, high: float, fraction: float) -> float:
    """A point between two values; exact at the ends and when they are equal (infinities too)."""
    return low if fraction == 0 or low == high else low + fraction * (high - low)
