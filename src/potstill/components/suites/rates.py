"""How many items are right, in all and per tag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.artifacts.suite_results import ItemResult
from potstill.core.stats import Interval, effective_items, rate_interval

__all__ = ["ALL", "TagRate", "rates", "tags_of", "worst"]

ALL = "all items"
"""Name of the slice that has every item."""
_FEWEST = 5  # items of a slice that can be called the worst


@dataclass(frozen=True)
class TagRate:
    """Rate of right answers to the items of a tag, with its exact interval.

    tag     the tag, or `all items`
    right   number of right answers
    items   number of items
    rate    weighted share of right answers
    """

    tag: str
    right: int
    items: int
    rate: float
    low: float
    high: float


def tags_of(items: Sequence[ItemResult]) -> list[str]:
    """The tags of items, each once, sorted."""
    return sorted({tag for item in items for tag in item.tags})


def rates(items: Sequence[ItemResult], confidence: float) -> list[TagRate]:
    """The rate of all items, then of each tag, sorted by tag."""
    by_tag = [(tag, [item for item in items if tag in item.tags]) for tag in tags_of(items)]
    return [_rate(tag, found, confidence) for tag, found in [(ALL, list(items)), *by_tag] if found]


def worst(found: Sequence[TagRate]) -> TagRate | None:
    """The tag that is worst even at the best end of its interval; None where no tag has enough items."""
    tags = [each for each in found if each.tag != ALL and each.items >= _FEWEST]
    return min(tags, key=lambda each: (each.high, each.rate), default=None)


def _rate(tag: str, items: Sequence[ItemResult], confidence: float) -> TagRate:
    total = math.fsum(item.weight for item in items)
    rate = math.fsum(item.weight for item in items if item.right) / total
    values = [float(item.right) for item in items]
    counted = effective_items(values, [item.group for item in items], confidence)
    # Kish's effective size: items of unequal weight count as fewer
    counted *= total**2 / math.fsum(item.weight**2 for item in items) / len(items)
    interval: Interval = rate_interval(rate * counted, counted, confidence)
    return TagRate(tag, sum(item.right for item in items), len(items), rate, interval.low, interval.high)
