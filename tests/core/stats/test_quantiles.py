"""Sample quantiles and their exact intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from potstill.core.stats import quantile, quantile_interval


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_agrees_with_numpy(values: list[float], q: float) -> None:
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("n", "q"), [(8, 0.5), (50, 0.5), (120, 0.95), (200, 0.5)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_each_end_misses_at_most_as_often_as_promised(n: int, q: float, level: float) -> None:
    """Exact, whatever the distribution: the number of values below the quantile is binomial."""
    found = quantile_interval(list(range(1, n + 1)), q, level)
    tail = (1 - level) / 2
    # with values 1 to n, an end is the rank of the value that it takes
    if math.isfinite(found.low):
        assert binom.cdf(found.low - 1, n, q) <= tail + 1e-12 < binom.cdf(found.low, n, q) + 1e-9
    if math.isfinite(found.high):
        assert binom.sf(found.high - 1, n, q) <= tail + 1e-12 < binom.sf(found.high - 2, n, q) + 1e-9
    assert found.low <= quantile(range(1, n + 1), q) <= found.high


def test_too_few_values_have_no_end() -> None:
    assert quantile_interval([3.0, 4.0], 0.5, 0.9) == quantile_interval([1.0, 9.0], 0.5, 0.9)
    assert quantile_interval([3.0, 4.0], 0.5, 0.9).high == math.inf
    assert quantile_interval(list(range(30)), 0.95, 0.9).high == math.inf


@pytest.mark.parametrize("call", [
    lambda: quantile([], 0.5), lambda: quantile([1.0, math.nan], 0.5), lambda: quantile([1.0], 1.1),
    lambda: quantile_interval([1.0], 0.5, 0.0),
])  # fmt: skip
def test_senseless_input_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"must|needs|not defined"):
        call()
