"""AURC against its definition: the mean over all orders of answers with equal scores."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.deferral.curves import area_under_risk, choose_score, excess_area

PAIRS = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=5)


def one_order(wrong: list[bool]) -> float:
    return sum(sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)) / len(wrong)


@given(PAIRS)
def test_ties_are_averaged_over_all_orders(pairs: list[tuple[float, bool]]) -> None:
    orders = [
        order
        for order in itertools.permutations(pairs)
        if [s for s, _ in order] == sorted((s for s, _ in pairs), reverse=True)
    ]
    expected = sum(one_order([wrong for _, wrong in order]) for order in orders) / len(orders)
    scores, wrong = zip(*pairs, strict=True)
    assert area_under_risk(scores, wrong) == pytest.approx(expected)


@given(PAIRS)
def test_excess_is_never_negative_and_zero_for_the_best_order(pairs: list[tuple[float, bool]]) -> None:
    scores, wrong = zip(*pairs, strict=True)
    assert excess_area(scores, wrong) >= -1e-12
    assert excess_area([-float(miss) for miss in wrong], wrong) == pytest.approx(0)


def test_golden_value() -> None:
    # 1 right, 1 wrong, 1 right: risks 0, 1/2, 1/3; the oracle's are 0, 0, 1/3
    assert area_under_risk([3.0, 2.0, 1.0], [False, True, False]) == pytest.approx((1 / 2 + 1 / 3) / 3)
    assert excess_area([3.0, 2.0, 1.0], [False, True, False]) == pytest.approx(1 / 6)


def test_the_best_score_is_chosen() -> None:
    wrong = [False, False, True, True]
    name, excess = choose_score({"mean": [1, 2, 3, 4], "margin": [4, 3, 2, 1]}, wrong)
    assert name == "margin" and excess["margin"] == pytest.approx(0) and excess["mean"] > 0
    assert choose_score({"mean": [1, 1], "total": [1, 1]}, [True, False])[0] == "mean"


def test_no_answer_and_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        area_under_risk([], [])
    with pytest.raises(ValueError, match="not a number"):
        area_under_risk([float("nan")], [True])
