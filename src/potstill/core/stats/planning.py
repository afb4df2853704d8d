"""How many items a decision needs."""

from __future__ import annotations

import math
from collections.abc import Callable

from potstill.core.stats.beta import at_least
from potstill.core.stats.intervals import checked_share
from potstill.core.stats.pairs import lowest_drop, paired_interval

__all__ = [
    "POWER",
    "items_for_pairs",
    "items_for_rate",
    "items_if_all_better",
    "items_if_all_right",
    "items_if_unchanged",
]

POWER = 0.8
"""Probability with which the number of items that these functions return decides."""

_MOST = 10_000_000
_POINTS = 7  # values of the number of differing items that stand for its distribution


def items_if_all_right(minimum: float, alpha: float) -> int | None:
    """The fewest items that show a rate of at least `minimum` when all of them are right; None: no number does."""
    checked_share(alpha, "alpha")
    if minimum >= 1:
        return None
    return 1 if minimum <= 0 else math.ceil(math.log(alpha) / math.log(minimum) * (1 - 1e-12))


def items_if_all_better(alpha: float) -> int:
    """The fewest items that show one model to be better when it gains every one of them."""
    return math.floor(math.log(checked_share(alpha, "alpha")) / math.log(0.5)) + 1


def items_if_unchanged(margin: float, alpha: float) -> int | None:
    """The fewest items that show a drop below `margin` when not one of them differs; None: no number does."""
    if margin <= 0:
        return None
    n = items_if_all_right(1 - margin, alpha) or 1
    while paired_interval(0, 0, n, 1 - 2 * alpha).high >= margin:
        n += 1
    return n


def items_for_rate(k: float, n: float, minimum: float, alpha: float) -> int | None:
    """Items at which `rate_interval` decides about a minimum with probability 0.8, if the rate is k/n; None: never.

    Raises:
        ValueError: n is not positive, or alpha is not between 0 and 1.
    """
    checked_share(alpha, "alpha")
    if n <= 0:
        raise ValueError(f"needs n > 0, got {n}")
    rate = k / n
    if rate == minimum or minimum >= 1 or minimum <= 0:
        return None

    def power(items: int) -> float:
        if rate > minimum:
            passes = _first(lambda i: at_least(i, items, minimum) <= alpha, items + 1)
            return at_least(passes, items, rate) if rate < 1 else float(passes <= items)
        fails = _first(lambda i: 1 - at_least(i + 1, items, minimum) > alpha, items + 1)
        return 1 - at_least(fails, items, rate) if rate > 0 else float(fails > 0)

    return _items(power, math.floor(n) + 1)


def items_for_pairs(b: float, c: float, n: float, threshold: float, alpha: float) -> int | None:
    """Items at which `paired_interval` excludes `threshold` with probability 0.8, if b/n and c/n stay; None: never.

    Raises:
        ValueError: counts or alpha out of range.
    """
    checked_share(alpha, "alpha")
    drop, differing, level = (b - c) / n, (b + c) / n, 1 - 2 * alpha
    if drop == threshold:
        return None
    share = b / (b + c) if b + c else 0.0

    def shows(first: int, m: int, items: int) -> bool:
        lost, gained = first, m - first
        if drop < threshold:
            return -lowest_drop(gained, lost, items, level) < threshold
        return lowest_drop(lost, gained, items, level) > threshold

    def decides(m: int, items: int) -> float:
        """Probability of a decision when m items differ."""
        if drop > threshold:
            first = _first(lambda i: shows(i, m, items), m + 1)
            return at_least(first, m, share) if share < 1 else float(first <= m)
        first = _first(lambda i: not shows(i, m, items), m + 1)
        return 1 - at_least(first, m, share) if share > 0 else float(first > 0)

    def power(items: int) -> float:
        counts = _likely_counts(items, differing)
        return math.fsum(weight * decides(m, items) for m, weight in counts)

    return _items(power, math.floor(n) + 1)


def _likely_counts(n: int, rate: float) -> list[tuple[int, float]]:
    """Values of Binomial(n, rate) with their weights: all likely ones, or equally likely stand-ins for many."""
    if rate in (0.0, 1.0):
        return [(round(n * rate), 1.0)]
    spread = 3.5 * math.sqrt(n * rate * (1 - rate))
    low, high = max(0, math.floor(n * rate - spread)), min(n, math.ceil(n * rate + spread) + 2)
    if high - low <= 2 * _POINTS:
        found = [(m, at_least(m, n, rate) - at_least(m + 1, n, rate)) for m in range(low, high + 1)]
        total = sum(weight for _, weight in found)
        return [(m, weight / total) for m, weight in found]
    middles = [(i + 0.5) / _POINTS for i in range(_POINTS)]
    return [(_first(lambda m, p=p: at_least(m + 1, n, rate) <= 1 - p, high), 1 / _POINTS) for p in middles]  # type: ignore[misc]


def _first(holds: Callable[[int], bool], end: int) -> int:
    """The first whole number from 0 for which `holds`, which then holds for all larger ones; `end` if for none."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _items(power: Callable[[int], float], least: int) -> int | None:
    """The number of items, `least` or more, whose power is about POWER.

    Counts are whole, so power rises in jumps and falls between them. Where it jumps beyond POWER, somewhat more items
    come closer.
    """
    low, high = least - 1, least
    while power(high) < POWER:
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    best, distance = high, abs(power(high) - POWER)
    for step in range(1, 25):
        if distance <= 0.02:
            break
        items = high + math.ceil(step * high / 100)
        if abs(power(items) - POWER) < distance:
            best, distance = items, abs(power(items) - POWER)
    return best
