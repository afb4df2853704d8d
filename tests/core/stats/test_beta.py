"""The beta distribution and its relatives, with scipy as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, t

from potstill.core.stats.beta import at_least, beta_cdf, beta_quantile, t_quantile

shapes = st.floats(0.5, 5000)


@settings(deadline=None)
@given(shapes, shapes, st.floats(0.0001, 0.9999))
def test_the_distribution_and_its_quantiles(a: float, b: float, p: float) -> None:
    assert beta_cdf(p, a, b) == pytest.approx(beta.cdf(p, a, b), abs=1e-10)
    assert beta.cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.01, 0.99))
def test_binomial_tails(n: int, share: float, rate: float) -> None:
    k = round(share * n)
    assert at_least(k, n, rate) == pytest.approx(binom.sf(k - 1, n, rate), abs=1e-10)
    assert (at_least(0, n, rate), at_least(n + 1, n, rate)) == (1.0, 0.0)


@pytest.mark.parametrize("df", [1, 2, 5.5, 30, 1000])
def test_quantiles_of_students_t(df: float) -> None:
    for p in (0.6, 0.95, 0.999):
        assert t_quantile(p, df) == pytest.approx(t.ppf(p, df), rel=1e-8)
