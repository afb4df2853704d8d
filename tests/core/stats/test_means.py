"""Student's t interval and test of a mean, compared with SciPy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from potstill.core.stats import mean_interval, mean_p_value

NUMBERS = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=2, max_size=12)


@given(NUMBERS)
def test_the_p_value_is_scipys(values: list[float]) -> None:
    if len(set(values)) > 1:
        assert mean_p_value(values) == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)


@given(NUMBERS, st.sampled_from([0.8, 0.9, 0.975]))
def test_the_interval_is_scipys_and_agrees_with_the_p_value(values: list[float], confidence: float) -> None:
    if len(set(values)) > 1:
        found = mean_interval(values, confidence)
        low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
        p = mean_p_value(values)
        if abs(p - (1 - confidence)) > 1e-6:
            assert (found.low > 0 or found.high < 0) == (p < 1 - confidence)


def test_one_value_shows_nothing() -> None:
    assert mean_interval([3.0], 0.9).low == -math.inf
    assert mean_p_value([3.0]) == 1.0
    assert mean_p_value([2.0, 2.0]) == 0.0
    assert mean_p_value([0.0, 0.0]) == 1.0
