"""The beta distribution, from which exact intervals of counts and quantiles of Student's t follow."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["at_least", "beta_cdf", "beta_quantile", "t_quantile", "z_quantile"]

_TINY = 1e-300
_EPSILON = 1e-15
_MAX_TERMS = 100_000


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), for positive a and b that need not be whole numbers.

    Source: DLMF, equations 8.17.4 and 8.17.22.
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    # the continued fraction converges fast below the mean only
    return _below_mean(x, a, b) if x < (a + 1) / (a + b + 2) else 1 - _below_mean(1 - x, b, a)


def _below_mean(x: float, a: float, b: float) -> float:
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    # the fraction 1 + d1/(1 + d2/(1 + ...)), from the front, by Lentz's method
    value, upper, lower = 1.0, 1.0, 0.0
    for term in range(1, _MAX_TERMS):
        m, odd = divmod(term, 2)
        if odd:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower, upper = 1 / _not_zero(1 + d * lower), _not_zero(1 + d / upper)
        value *= upper * lower
        if abs(upper * lower - 1) < _EPSILON:
            break
    return math.exp(log_front) / (a * value)


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p."""
    low, high, x = 0.0, 1.0, a / (a + b)
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(200):
        miss = beta_cdf(x, a, b) - p
        low, high = (x, high) if miss < 0 else (low, x)
        density = math.exp(log_scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))
        # Newton's step, or half of the bracket where the step leaves it
        step = x - miss / density if density > _TINY else math.nan
        new = step if low < step < high else (low + high) / 2
        if abs(new - x) <= 1e-14 * x or new in (0.0, 1.0):
            return new
        x = new
    return x


def at_least(k: float, n: float, rate: float) -> float:
    """P(X >= k) for X ~ Binomial(n, rate); between whole numbers it is continuous."""
    if k <= 0:
        return 1.0
    return beta_cdf(rate, k, n - k + 1) if k < n + 1 else 0.0


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t distribution, for p above 1/2."""
    x = beta_quantile(2 * (1 - p), df / 2, 0.5)
    return math.sqrt(df * (1 - x) / x)


def z_quantile(p: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(p)
