"""Thresholds keep their promises: against scipy, by definition, and in simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from potstill.components.deferral.thresholds import (
    coverage_grid,
    feasibility,
    fewest_served,
    learn_then_test,
    risk_control,
)

Answers = list[tuple[float, bool]]


def answers(draw: random.Random, n: int) -> Answers:
    """An over-confident student: it is wrong in a quarter of all cases, less often where its score is high."""
    scores = [draw.random() for _ in range(n)]
    return [(score, draw.random() < miss(score)) for score in scores]


def miss(score: float) -> float:
    return 0.6 * (1 - score) ** 1.5


def risk_above(threshold: float) -> float:
    """The exact risk of answers with a score of at least `threshold`: the mean of `miss` over [threshold, 1]."""
    return 0.6 * (1 - threshold) ** 1.5 / 2.5


@pytest.mark.parametrize(("alpha", "delta", "fewest"), [(0.1, 0.1, 22), (0.05, 0.05, 59), (0.01, 0.05, 299)])
def test_fewest_answers(alpha: float, delta: float, fewest: int) -> None:
    assert fewest_served(alpha, delta) == fewest
    assert stats.binom.cdf(0, fewest, alpha) <= delta < stats.binom.cdf(0, fewest - 1, alpha)


def test_feasibility() -> None:
    found = feasibility([True] * 24 + [False] * 76, 0.05, 0.05)
    assert found.risk == 0.24 and found.abstain == pytest.approx((0.24 - 0.05) / 0.95)
    # withholding that many answers, all of them wrong, leaves exactly the risk that is allowed
    assert (found.risk - found.abstain) / (1 - found.abstain) == pytest.approx(0.05)
    assert feasibility([False, True], 0.6, 0.1).abstain == 0


@given(st.integers(1, 300), st.data())
def test_accepted_threshold_is_certified_by_scipy(n: int, data: st.DataObject) -> None:
    wrong = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    scores = [float(n - i) for i in range(n)]
    found = learn_then_test(scores, wrong, [n / 2, 1.0], 0.3, 0.1)

    def p_of(threshold: float) -> float:
        above = [miss for score, miss in zip(scores, wrong, strict=True) if score >= threshold]
        return float(stats.binom.cdf(sum(above), len(above), 0.3))

    p = [p_of(threshold) for threshold in (n / 2, 1.0)]
    accepted = [t for i, t in enumerate((n / 2, 1.0)) if max(p[: i + 1]) <= 0.1]
    assert found.threshold == (accepted[-1] if accepted else None)
    if found.threshold is not None:
        assert found.bound == pytest.approx(p[len(accepted) - 1], abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, -math.inf]), st.booleans()), min_size=1, max_size=60))
def test_risk_control_is_the_loosest_threshold(pairs: Answers) -> None:
    scores, wrong = map(list, zip(*pairs, strict=True))
    n, alpha = len(pairs), 0.2
    kept = [t for t in sorted(set(scores) - {-math.inf}) if (sum(w for s, w in pairs if s >= t) + 1) / (n + 1) <= alpha]
    assert risk_control(scores, wrong, alpha).threshold == (kept[0] if kept else None)


def test_grid_is_strict_to_loose_and_starts_where_something_can_be_certified() -> None:
    scores = [score for score, _ in answers(random.Random(1), 300)]
    grid = coverage_grid(scores, 600, 0.05, 0.05)
    assert list(grid) == sorted(grid, reverse=True) and len(grid) == 10
    assert sum(score >= grid[0] for score in scores) / len(scores) == pytest.approx(3 * 59 / 600, abs=0.01)
    assert grid[-1] == min(scores)
    assert coverage_grid([-math.inf] * 9, 9, 0.05, 0.05) == ()


def test_realised_risk_exceeds_alpha_in_at_most_delta_of_runs() -> None:
    """200 calibration sets. The plug-in threshold takes the empirical risk for the risk, and fails far more often."""
    alpha, delta, runs = 0.1, 0.1, 200
    broken = plug_in_broken = certified = 0
    coverage = []
    for seed in range(runs):
        draw = random.Random(seed)
        choosing, testing = answers(draw, 150), answers(draw, 300)
        scores, wrong = map(list, zip(*testing, strict=True))
        grid = coverage_grid([score for score, _ in choosing], len(testing), alpha, delta)
        found = learn_then_test(scores, wrong, grid, alpha, delta)
        if found.threshold is not None:
            certified += 1
            broken += risk_above(found.threshold) > alpha
            coverage.append(1 - found.threshold)
        kept = [t for t in scores if sum(w for s, w in testing if s >= t) <= alpha * sum(s >= t for s in scores)]
        plug_in_broken += risk_above(min(kept)) > alpha
    oracle = (alpha * 2.5 / 0.6) ** (1 / 1.5)
    assert broken <= delta * runs + 2 * math.sqrt(runs * delta * (1 - delta))
    assert plug_in_broken > 0.35 * runs
    assert certified > 0.8 * runs
    assert 0.6 * oracle < sum(coverage) / len(coverage) < oracle


def test_marginal_promise_holds_on_average() -> None:
    alpha, runs = 0.05, 400
    total = 0.0
    for seed in range(runs):
        scores, wrong = map(list, zip(*answers(random.Random(seed), 100), strict=True))
        found = risk_control(scores, wrong, alpha)
        threshold = 1.0 if found.threshold is None else found.threshold
        total += (1 - threshold) * risk_above(threshold)  # the chance that the next answer is given and wrong
    assert 0.8 * alpha < total / runs <= alpha + 0.002


def test_no_threshold_is_a_result() -> None:
    assert learn_then_test([1.0] * 50, [True] * 50, [1.0], 0.05, 0.05).threshold is None
    assert learn_then_test([1.0] * 58, [False] * 58, [1.0], 0.05, 0.05).threshold is None
    assert learn_then_test([1.0] * 59, [False] * 59, [1.0], 0.05, 0.05).threshold == 1.0
    assert risk_control([1.0] * 18, [False] * 18, 0.05).threshold is None
    assert risk_control([1.0] * 19, [False] * 19, 0.05).threshold == 1.0
