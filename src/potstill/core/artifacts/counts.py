"""Counts of right answers, of one model and of two models on the same items, with their intervals.

Items of one group (phrasings of one question) are not independent, so the intervals are those of an effective number of
items. Every interval is two-sided, at the confidence that the caller gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from potstill.core.artifacts.base import Part
from potstill.core.stats import effective_items, paired_interval, paired_p_value, rate_interval

__all__ = ["DifferenceWord", "PairedCounts", "Rate", "difference_word"]

DifferenceWord = Literal["better", "worse", "no difference shown"]
Groups = Sequence[str | None]


def difference_word(low: float, high: float) -> DifferenceWord:
    """What an interval of a gain says: nothing is shown where it contains 0."""
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


class Rate(Part):
    """`k` of `n` items, as a fraction, with its interval; without groups, `effective` is n."""

    k: int
    n: int
    effective: float
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Sequence[bool], groups: Groups | None, confidence: float) -> Rate | None:
        """Rate of the items that are true; None without items. `groups` are those of the items, None for no groups."""
        if not outcomes:
            return None
        k, n = sum(outcomes), len(outcomes)
        effective = effective_items([float(right) for right in outcomes], groups or [None] * n, confidence)
        interval = rate_interval(k * effective / n, effective, confidence)
        return cls(k=k, n=n, effective=effective, rate=k / n, low=interval.low, high=interval.high)


class PairedCounts(Part):
    """Two models on the same `n` items, which count as `effective` independent ones.

    broken      items that only the second model got right
    fixed       items that only the first model got right
    kept        items that both got right, of those that the second got right; None if there are no such items
    gain        difference of the rates of right answers, first minus second, as a fraction
    low, high   ends of its interval
    p_value     two-sided exact McNemar p-value of no difference
    """

    broken: int
    fixed: int
    n: int
    effective: float
    kept: Rate | None
    gain: float
    low: float
    high: float
    p_value: float

    @classmethod
    def of(
        cls, first: Sequence[bool], second: Sequence[bool], groups: Groups | None, confidence: float
    ) -> PairedCounts | None:
        """Compare two models' right answers to the same items; None without items.

        Raises:
            ValueError: the models have different numbers of items.
        """
        pairs = list(zip(first, second, strict=True))
        if not pairs:
            return None
        n, named = len(pairs), groups or [None] * len(pairs)
        broken, fixed = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
        effective = effective_items([float(a) - float(b) for a, b in pairs], named, confidence)
        share = effective / n
        interval = paired_interval(fixed * share, broken * share, effective, confidence)
        known = [(a, group) for (a, b), group in zip(pairs, named, strict=True) if b]
        return cls(
            broken=broken,
            fixed=fixed,
            n=n,
            effective=effective,
            kept=Rate.of([a for a, _ in known], [group for _, group in known], confidence),
            gain=(fixed - broken) / n,
            low=interval.low,
            high=interval.high,
            p_value=paired_p_value(broken * share, fixed * share),
        )

    @property
    def word(self) -> DifferenceWord:
        """Whether the first model is better than the second, by the interval."""
        return difference_word(self.low, self.high)
