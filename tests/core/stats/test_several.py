"""Several tests at once."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from potstill.core.stats import holm, p_value_from_interval


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    everyone = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everyone, size)]
    oracle = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in everyone]
    assert holm(p_values) == pytest.approx(oracle)


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    for wrong in (1.5, math.nan):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            holm([0.1, wrong])


def test_the_p_value_of_an_interval_is_that_of_its_estimate() -> None:
    z = norm.ppf(0.95)
    # an estimate of 3 standard errors above the threshold
    assert p_value_from_interval(5.0, 5 - z, 5 + z, 2.0, 0.9) == pytest.approx(2 * norm.sf(3))
    # the end on the threshold's side counts
    assert p_value_from_interval(5.0, 5 - z, 5 + 9 * z, 2.0, 0.9) == pytest.approx(2 * norm.sf(3))
    assert p_value_from_interval(None, 1.0, None, 2.0, 0.9) == 0.0
