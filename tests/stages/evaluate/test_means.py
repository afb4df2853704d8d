"""Means over tokens with rows as the sample: coverage where a few rows hold most of the sum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from potstill.stages.evaluate.means import ratio_interval


def test_equal_rows_and_single_rows() -> None:
    even = ratio_interval([2.0, 4.0, 6.0], [1, 2, 3], 0.9)
    assert (even.low, even.high) == (2.0, 2.0)
    alone = ratio_interval([2.0], [1], 0.9)
    assert (alone.low, alone.high) == (-np.inf, np.inf)
    endless = ratio_interval([np.inf, 1.0], [1, 1], 0.9)
    assert endless.high == np.inf


def test_many_similar_rows_have_nearly_students_interval() -> None:
    values = np.random.default_rng(1).normal(5, 1, 4000)
    found = ratio_interval(values.tolist(), [1] * 4000, 0.95)
    reach = t.ppf(0.975, 3999) * values.std(ddof=1) / np.sqrt(4000)
    assert (found.high - found.low) / (2 * reach) == pytest.approx(1.0, abs=0.1)
    assert found == ratio_interval(values.tolist(), [1] * 4000, 0.95)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_intervals_cover_where_few_rows_dominate(sigma: float) -> None:
    """Row means are lognormal, as the KL of rows is. The percentile bootstrap over 32 rows covers 70 to 80 %."""
    rng, missed, trials = np.random.default_rng(8), 0, 120
    for _ in range(trials):
        tokens = rng.integers(5, 60, 300)
        sums = rng.lognormal(0, sigma, 300) * tokens
        found = ratio_interval(sums.tolist(), tokens.tolist(), 0.9)
        missed += not found.low <= np.exp(sigma**2 / 2) <= found.high
    assert missed / trials <= 0.11


@pytest.mark.parametrize("rows", [([], []), ([1.0], [1, 2])])
def test_senseless_input_is_refused(rows: tuple[list[float], list[int]]) -> None:
    with pytest.raises(ValueError, match="needs one count"):
        ratio_interval(*rows, 0.9)
