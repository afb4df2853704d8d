"""The number of items that would decide decides about as often as it says."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import binom

from potstill.core.stats import (
    items_for_pairs,
    items_for_rate,
    items_if_all_better,
    items_if_all_right,
    items_if_unchanged,
    paired_interval,
    rate_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "minimum"), [(90, 100, 0.85), (57, 60, 0.9), (198, 200, 0.98), (160, 200, 0.85), (4400, 5000, 0.87)]
)
def test_a_rate_is_decided_in_four_of_five_tries(k: int, n: int, minimum: float) -> None:
    """Exact: the probability of all counts that decide."""
    items = items_for_rate(k, n, minimum, 0.05)
    assert items is not None and items > n
    counts = np.arange(max(0, int(items * k / n) - 400), min(items, int(items * k / n) + 400) + 1)
    found = [rate_interval(int(count), items, 0.9) for count in counts]
    decides = np.array([i.low >= minimum or i.high < minimum for i in found])
    assert 0.75 <= binom.pmf(counts, items, k / n)[decides].sum() <= 0.85


@pytest.mark.parametrize(
    ("b", "c", "n", "threshold"), [(25, 25, 500, 0.02), (5, 0, 600, 0.02), (3, 1, 600, 0.0), (30, 20, 200, 0.1)]
)
def test_a_difference_is_decided_in_four_of_five_tries(b: int, c: int, n: int, threshold: float) -> None:
    items = items_for_pairs(b, c, n, threshold, 0.05)
    assert items is not None and items > n
    shares = [b / n, c / n, 1 - (b + c) / n]
    draws = np.random.default_rng(3).multinomial(items, shares, size=1500).tolist()
    interval = lru_cache(None)(lambda lost, gained: paired_interval(lost, gained, items, 0.9))
    found = [interval(lost, gained) for lost, gained, _ in draws]
    assert 0.75 <= np.mean([i.low > threshold or i.high < threshold for i in found]) <= 0.85


def test_no_number_of_items_decides_at_the_threshold() -> None:
    assert items_for_rate(85, 100, 0.85, 0.05) is None
    assert items_for_rate(100, 100, 1.0, 0.05) is None
    assert items_for_pairs(3, 3, 200, 0.0, 0.05) is None


@pytest.mark.parametrize("minimum", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_fewest_items_when_all_are_right(minimum: float, alpha: float) -> None:
    fewest = items_if_all_right(minimum, alpha)
    assert fewest is not None
    assert rate_interval(fewest, fewest, 1 - 2 * alpha).low >= minimum
    assert rate_interval(fewest - 1, fewest - 1, 1 - 2 * alpha).low < minimum
    margin = 1 - minimum
    least = items_if_unchanged(margin, alpha)
    assert (
        paired_interval(0, 0, least, 1 - 2 * alpha).high
        < margin
        <= paired_interval(0, 0, least - 1, 1 - 2 * alpha).high
    )
    assert items_if_all_right(1.0, alpha) is None and items_if_unchanged(0.0, alpha) is None


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_fewest_items_when_all_are_gained(alpha: float) -> None:
    fewest = items_if_all_better(alpha)
    assert paired_interval(fewest, 0, fewest, 1 - 2 * alpha).low > 0
    assert paired_interval(fewest - 1, 0, fewest - 1, 1 - 2 * alpha).low <= 0
