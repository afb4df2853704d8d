"""Exact intervals of one rate: published values, scipy, and exact coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from potstill.core.stats import rate_interval, rate_p_value


def test_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 5
    for k, n, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        found = rate_interval(k, n, 0.95)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]), st.floats(0.01, 0.99))
def test_the_interval_is_scipys_and_inverts_the_test(n: int, share: float, level: float, rate: float) -> None:
    k = round(share * n)
    found, oracle = rate_interval(k, n, level), binomtest(k, n).proportion_ci(level, method="exact")
    assert (found.low, found.high) == (pytest.approx(oracle.low, abs=1e-9), pytest.approx(oracle.high, abs=1e-9))
    assert 0 <= found.low <= k / n <= found.high <= 1
    p = rate_p_value(k, n, rate)
    if abs(p - (1 - level)) > 1e-9:
        assert (p < 1 - level) == (not found.low <= rate <= found.high)


@pytest.mark.parametrize("n", [50, 200, 600])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_each_end_misses_at_most_as_often_as_promised(n: int, level: float) -> None:
    """Exact, by summing over all counts: no rate between 0.5 and 1 is covered less often than the level says."""
    intervals = [rate_interval(k, n, level) for k in range(n + 1)]
    lows, highs = np.array([i.low for i in intervals]), np.array([i.high for i in intervals])
    for rate in np.linspace(0.5, 1, 101):
        chance = binom.pmf(np.arange(n + 1), n, rate)
        assert chance[lows > rate].sum() <= (1 - level) / 2 + 1e-9
        assert chance[highs < rate].sum() <= (1 - level) / 2 + 1e-9


def test_nothing_is_known_without_items() -> None:
    assert (rate_interval(0, 0, 0.9).low, rate_interval(0, 0, 0.9).high) == (0.0, 1.0)


@pytest.mark.parametrize(
    "call", [lambda: rate_interval(5, 4, 0.9), lambda: rate_interval(-1, 4, 0.9), lambda: rate_interval(1, 4, 1.0)]
)
def test_senseless_input_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"must|needs"):
        call()
