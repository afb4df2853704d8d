"""The chi-square test against scipy, and against its own definition where counts are rare."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from potstill.core.stats.chi_square import chi_square_tail, counts_p_value


@given(st.floats(0, 200), st.integers(1, 40))
def test_tail_is_scipys(x: float, df: int) -> None:
    assert chi_square_tail(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-9, abs=1e-300)


@given(st.lists(st.tuples(st.integers(20, 200), st.integers(20, 200)), min_size=2, max_size=12))
def test_p_value_is_that_of_the_contingency_table(cells: list[tuple[int, int]]) -> None:
    first, second = zip(*cells, strict=True)
    expected = stats.chi2_contingency([first, second], correction=False)
    if expected.expected_freq.min() >= 5:
        assert counts_p_value(first, second) == pytest.approx(expected.pvalue, rel=1e-9)


def test_rare_classes_are_added_up() -> None:
    merged = stats.chi2_contingency([[53, 347], [30, 170]], correction=False).pvalue
    assert counts_p_value([2, 51, 347], [1, 29, 170]) == pytest.approx(merged)
    assert counts_p_value([400, 0], [199, 1]) == 1.0 == counts_p_value([], []) == counts_p_value([0, 0], [3, 4])


def test_level_is_kept_in_simulation() -> None:
    draw = np.random.default_rng(0)
    shares = [0.4, 0.3, 0.2, 0.06, 0.03, 0.01]
    p = [
        counts_p_value(draw.multinomial(400, shares).tolist(), draw.multinomial(200, shares).tolist())
        for _ in range(2000)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("x", "df"), [(-1.0, 2), (1.0, 0)])
def test_what_is_not_defined_is_refused(x: float, df: int) -> None:
    with pytest.raises(ValueError, match="needs x >= 0"):
        chi_square_tail(x, df)
