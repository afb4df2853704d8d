"""Items in groups: what they are worth, and how often intervals with them cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.core.artifacts.counts import PairedCounts, Rate
from potstill.core.stats import effective_items, rate_interval


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_items_are_worth_no_more_than_themselves(items: list[tuple[bool, int]]) -> None:
    values, groups = [float(right) for right, _ in items], [group for _, group in items]
    found = effective_items(values, groups, 0.9)
    assert 1 - 1e-9 <= found <= len(items) + 1e-9
    assert effective_items(values, [None] * len(items), 0.9) == len(items)
    assert effective_items(values, list(range(len(items))), 0.9) == len(items)


def test_items_that_always_agree_are_worth_their_groups() -> None:
    values = [float(i % 3 == 0) for i in range(120) for _ in range(4)]
    groups = [i for i in range(120) for _ in range(4)]
    # 40 of 120 groups differ from the rest, so Student's t with 40 degrees of freedom costs 5 %
    assert 110 < effective_items(values, groups, 0.9) <= 120
    # nothing shows whether items that are all right agree by chance
    assert effective_items([1.0] * 480, groups, 0.9) == pytest.approx(120)
    # groups of unequal sizes: n^2 / sum of squares (Kish)
    assert effective_items([1.0] * 10, [0] * 6 + [1, 2, 3, 4], 0.9) == pytest.approx(100 / 40)


@pytest.mark.parametrize(("rate", "alike"), [(0.8, 0.0), (0.8, 1.0), (0.95, 0.5), (0.95, 1.0)])
def test_intervals_of_grouped_items_cover(rate: float, alike: float) -> None:
    """200 items in groups of four; `alike` is the correlation within a group. Items counted alone cover 66 % at 1."""
    rng, missed, trials = np.random.default_rng(4), 0, 300
    groups = [group for group in range(50) for _ in range(4)]
    for _ in range(trials):
        shared = rng.random((50, 1)) < rate
        right = np.where(rng.random((50, 1)) < alike, shared, rng.random((50, 4)) < rate)
        values = right.astype(float).ravel().tolist()
        effective = effective_items(values, groups, 0.9)
        found = rate_interval(sum(values) / 200 * effective, effective, 0.9)
        missed += not found.low <= rate <= found.high
    assert missed / trials <= 0.11


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_any_outcomes_in_any_groups_can_be_compared(items: list[tuple[bool, bool, int]]) -> None:
    first, second = [a for a, _, _ in items], [b for _, b, _ in items]
    found = PairedCounts.of(first, second, [str(group) for _, _, group in items], 0.9)
    assert found is not None and -1 <= found.low <= found.gain + 1e-9 and found.gain - 1e-9 <= found.high <= 1
    rate = Rate.of(first, [str(group) for _, _, group in items], 0.9)
    assert rate is not None and 0 <= rate.low <= rate.rate + 1e-9 and rate.rate - 1e-9 <= rate.high <= 1


def test_each_value_needs_a_group() -> None:
    with pytest.raises(ValueError, match="needs one group per value"):
        effective_items([1.0], [], 0.9)
