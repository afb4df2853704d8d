"""Gates: the verdicts at their edges, and how often they err in simulated releases."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from finished_run import pair
from potstill.core.artifacts.metrics import PairedCounts, Rate
from potstill.core.artifacts.verdict import GateResult, VerdictWord
from potstill.core.stats import paired_p_value, rate_p_value
from potstill.stages.gate.gates import better_gate, drop_gate, floor_gate, limit_gate, overall, retention_gate
from potstill.stages.gate.several import confirm_failures


def rate(k: int, n: int, confidence: float = 0.9) -> Rate:
    found = Rate.of([i < k for i in range(n)], None, confidence)
    assert found is not None
    return found


def items_needed(result: GateResult) -> int:
    """The number of items that would decide, by the gate's detail."""
    return int(result.detail.split("About ")[1].split(" ")[0].replace(",", ""))


# ---- floor ----


@pytest.mark.parametrize(
    ("k", "n", "verdict"), [(95, 100, "PASS"), (90, 100, "INCONCLUSIVE"), (82, 100, "INCONCLUSIVE"), (70, 100, "FAIL")]
)
def test_floor_gate(k: int, n: int, verdict: VerdictWord) -> None:
    result, found = floor_gate(rate(k, n), 0.85, 0.05), rate(k, n)
    assert result.verdict == verdict
    assert (result.value, result.low, result.high) == (k / n, found.low, found.high)
    assert "90 % interval" in result.detail


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.02, 0.98))
def test_floor_gate_decides_by_its_interval(n: int, share: float, floor: float) -> None:
    result = floor_gate(rate(round(share * n), n), floor, 0.05)
    assert result.low is not None and result.high is not None
    assert (result.verdict == "PASS") == (result.low >= floor)
    assert (result.verdict == "FAIL") == (result.high < floor)


@pytest.mark.parametrize("n", [50, 200])
def test_a_file_at_the_floor_passes_or_fails_at_most_as_often_as_alpha_says(n: int) -> None:
    verdicts = [floor_gate(rate(k, n), 0.9, 0.05).verdict for k in range(n + 1)]
    chance = binom.pmf(np.arange(n + 1), n, 0.9)
    assert chance[[v == "PASS" for v in verdicts]].sum() <= 0.05
    assert chance[[v == "FAIL" for v in verdicts]].sum() <= 0.05


def test_floor_gate_says_how_many_items_decide() -> None:
    needed = items_needed(floor_gate(rate(90, 100), 0.85, 0.05))
    verdicts = [floor_gate(rate(k, needed), 0.85, 0.05).verdict for k in range(needed + 1)]
    decided = binom.pmf(np.arange(needed + 1), needed, 0.9)[[v != "INCONCLUSIVE" for v in verdicts]].sum()
    assert 0.75 <= decided <= 0.85
    assert "No number of items" in floor_gate(rate(85, 100), 0.85, 0.05).detail
    assert "No number of items" in floor_gate(rate(100, 100), 1.0, 0.05).detail


def test_floor_gate_edges() -> None:
    assert floor_gate(rate(0, 10), 0.0, 0.05).verdict == "PASS"
    assert floor_gate(rate(990, 1000), 1.0, 0.05).verdict == "FAIL"


def test_phrasings_of_one_item_are_not_as_many_items() -> None:
    """57 of 60 right: three phrasings each of 20 items, of which one is wrong in all of them."""
    outcomes = [item > 0 for item in range(20) for _ in range(3)]
    alone = Rate.of(outcomes, None, 0.9)
    grouped = Rate.of(outcomes, [f"item {item}" for item in range(20) for _ in range(3)], 0.9)
    assert alone and grouped and alone.rate == grouped.rate
    assert floor_gate(alone, 0.87, 0.05).verdict == "PASS"
    result = floor_gate(grouped, 0.87, 0.05)
    assert result.verdict == "INCONCLUSIVE"
    assert items_needed(result) > items_needed(floor_gate(alone, 0.9, 0.05))


# ---- retention ----


def test_retention_counts_the_right_answers_that_are_kept() -> None:
    found = pair(4, 1, 600, neither=25)  # the teacher has 574 right, the file 571, and 570 of them are the same
    result = retention_gate(found, 0.97, 0.05)
    assert (result.verdict, result.value) == ("PASS", 570 / 574)
    assert result.detail.startswith("570 of the teacher's 574 right answers kept, 4 lost and 1 gained: 99.3 %")


@pytest.mark.parametrize(("minimum", "verdict"), [(0.9, "PASS"), (0.95, "INCONCLUSIVE"), (0.99, "FAIL")])
def test_retention_gate_decides_by_the_interval_of_a_rate(minimum: float, verdict: VerdictWord) -> None:
    result, kept = retention_gate(pair(20, 8, 430, neither=10), minimum, 0.05), rate(392, 412)
    assert result.verdict == verdict
    assert (result.low, result.high) == (kept.low, kept.high)


def test_retention_gate_says_how_many_test_items_decide() -> None:
    result = retention_gate(pair(20, 8, 430, neither=100), 0.95, 0.05)
    needed = items_needed(result)
    right = round(needed * 322 / 430)  # of them, the teacher gets so many right
    counts = np.arange(right + 1)
    kept = [rate(int(k), right) for k in counts]
    decided = [found.low >= 0.95 or found.high < 0.95 for found in kept]
    assert 0.75 <= binom.pmf(counts, right, 302 / 322)[decided].sum() <= 0.85


def test_retention_gate_needs_a_teacher_that_is_right() -> None:
    result = retention_gate(pair(0, 2, 5, neither=3), 0.9, 0.05)
    assert (result.verdict, result.value, result.low) == ("INCONCLUSIVE", None, None)


def test_a_student_equal_to_its_teacher_needs_enough_items() -> None:
    # 0.95 to the power of 59 is below 0.05
    assert retention_gate(pair(0, 0, 58, neither=0), 0.95, 0.05).verdict == "INCONCLUSIVE"
    assert retention_gate(pair(0, 0, 59, neither=0), 0.95, 0.05).verdict == "PASS"


# ---- drop ----


@pytest.mark.parametrize(
    ("lost", "gained", "n", "verdict"),
    [
        (5, 0, 600, "PASS"),  # a loss is shown (two-sided p = 0.06), and it is within the margin of 2 points
        (20, 2, 5000, "PASS"),
        (0, 0, 500, "PASS"),
        (0, 0, 100, "INCONCLUSIVE"),
        (25, 25, 500, "INCONCLUSIVE"),
        (10, 30, 500, "PASS"),
        (35, 15, 500, "INCONCLUSIVE"),
        (60, 10, 500, "FAIL"),
    ],
)
def test_a_drop_fails_when_it_is_shown_to_exceed_the_accepted_one(
    lost: int, gained: int, n: int, verdict: VerdictWord
) -> None:
    result, found = drop_gate("drop", pair(lost, gained, n), 0.02, 0.05), pair(lost, gained, n)
    assert result.verdict == verdict
    assert result.value == pytest.approx((lost - gained) / n)
    assert (result.low, result.high) == (-found.high, -found.low)
    assert "p =" not in result.detail


def test_the_p_value_of_a_failed_drop_is_that_of_its_margin() -> None:
    result = drop_gate("drop", pair(60, 10, 500), 0.02, 0.05)
    assert result.p_value is not None and 0 < result.p_value < 0.001
    edge = drop_gate("drop", pair(60, 10, 500), (result.low or 0) - 1e-6, 0.05)
    assert edge.p_value == pytest.approx(0.1, abs=1e-3)


def test_simulated_releases_through_the_drop_gate() -> None:
    """600 items, 4 % discordant: a file that lost exactly the margin of 2 points hardly passes or fails."""
    draws = np.random.default_rng(0).multinomial(600, [0.03, 0.01, 0.96], size=3000).tolist()
    counts = lru_cache(None)(lambda lost, gained: pair(lost, gained, 600, neither=0))
    found = [counts(lost, gained) for lost, gained, _ in draws]
    assert np.mean([-pair.low < 0.02 for pair in found]) < 0.06  # PASS
    assert np.mean([-pair.high > 0.02 for pair in found]) < 0.06  # FAIL


# ---- better than the control ----


def test_better_gate() -> None:
    better = better_gate(pair(6, 16, 200), 0.05)
    assert better.verdict == "PASS"
    assert (better.value, better.p_value) == (pytest.approx(0.05), pytest.approx(0.052479, abs=1e-6))
    assert better.detail.startswith("Better than plain fine-tuning: 16 gained and 6 lost of 200 items")
    assert "(90 % interval +" in better.detail and "two-sided p = 0.052, exact McNemar test" in better.detail
    worse = better_gate(pair(16, 6, 200), 0.05)
    assert worse.verdict == "FAIL" and worse.detail.startswith("Worse than plain fine-tuning")
    even = better_gate(pair(10, 12, 200), 0.05)
    assert even.verdict == "INCONCLUSIVE" and even.detail.startswith("No difference from plain fine-tuning shown")
    same = better_gate(pair(3, 3, 200), 0.05)
    assert "two-sided p = 1," in same.detail and "No number of items" in same.detail


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 50))
def test_the_word_follows_from_the_interval_and_both_sides_are_treated_alike(lost: int, gained: int, rest: int) -> None:
    n = lost + gained + rest
    one, other = pair(lost, gained, n, neither=0), pair(gained, lost, n, neither=0)
    swapped = {"better": "worse", "worse": "better", "no difference shown": "no difference shown"}
    assert other.word == swapped[one.word]
    assert one.word == ("better" if one.low > 0 else "worse" if one.high < 0 else "no difference shown")
    assert (one.word != "no difference shown") == (one.p_value < 0.1)
    assert one.p_value == other.p_value == paired_p_value(lost, gained)


# ---- limits ----


@pytest.mark.parametrize(
    ("kind", "low", "high", "verdict"),
    [
        ("max", 80, 100, "PASS"),
        ("max", 95, 101, "INCONCLUSIVE"),
        ("max", 101, 120, "FAIL"),
        ("max", 100, 120, "INCONCLUSIVE"),
        ("min", 100, 120, "PASS"),
        ("min", 99, 120, "INCONCLUSIVE"),
        ("min", 80, 99, "FAIL"),
        ("min", 80, 100, "INCONCLUSIVE"),
    ],
)
def test_limit_gate(kind: Any, low: float, high: float, verdict: VerdictWord) -> None:
    assert limit_gate("p95", (low + high) / 2, 100, low, high, "ms", kind).verdict == verdict


def test_limit_gate_without_an_interval() -> None:
    assert limit_gate("memory", 600, 600, unit="MB").verdict == "PASS"
    assert limit_gate("memory", 601, 600, unit="MB").verdict == "FAIL"
    assert limit_gate("speed", 9, 10, unit="tokens/s", kind="min").verdict == "FAIL"
    assert limit_gate("memory", 601, 600, unit="MB").detail == "Measured 601 MB; maximum 600 MB."


def test_an_infinite_measurement_is_judged_and_can_be_written() -> None:
    worst = limit_gate("kl", math.inf, 0.1, 0.2, math.inf, "nats")
    assert (worst.verdict, worst.value, worst.low, worst.high) == ("FAIL", None, 0.2, None)
    assert "inf" in worst.detail
    assert limit_gate("kl", 0.05, 0.1, 0.02, math.inf, "nats").verdict == "INCONCLUSIVE"


# ---- all together ----


def result_of(verdict: VerdictWord) -> GateResult:
    return GateResult(
        key="", name="x", verdict=verdict, value=None, low=None, high=None, threshold=0.0, unit="rate", detail=""
    )


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([], "INCONCLUSIVE"),
        (["PASS", "PASS"], "PASS"),
        (["PASS", "INCONCLUSIVE"], "INCONCLUSIVE"),
        (["INCONCLUSIVE", "FAIL", "PASS"], "FAIL"),
    ],
)
def test_overall(verdicts: list[VerdictWord], whole: VerdictWord) -> None:
    assert overall(result_of(v) for v in verdicts) == whole


def test_a_weak_failure_among_many_gates_is_not_enough() -> None:
    weak = floor_gate(rate(79, 100), 0.86, 0.05)
    assert weak.verdict == "FAIL" and weak.p_value == rate_p_value(79, 100, 0.86)
    strong, fine = floor_gate(rate(70, 100), 0.86, 0.05), floor_gate(rate(99, 100), 0.86, 0.05)
    too_large = limit_gate("file size", 5.0, 4.0, unit="MB")
    assert [r.verdict for r in confirm_failures([weak], 0.05)] == ["FAIL"]
    found = confirm_failures([weak, strong, fine, fine, too_large], 0.05)
    assert [r.verdict for r in found] == ["INCONCLUSIVE", "FAIL", "PASS", "PASS", "FAIL"]
    assert "4 gates can fail by chance: with Holm's correction, two-sided p =" in found[0].detail
    assert found[4] == too_large  # a measured value does not fail by chance


def test_a_release_at_all_its_limits_fails_at_most_as_often_as_alpha_says() -> None:
    """Ten independent gates, each of a file exactly at its floor: without correction, one in four releases fails."""
    gate = lru_cache(None)(lambda k: floor_gate(rate(k, 200), 0.9, 0.05))
    draws = np.random.default_rng(5).binomial(200, 0.9, size=(2000, 10)).tolist()
    alone = np.mean([any(gate(k).verdict == "FAIL" for k in release) for release in draws])
    failed = [any(r.verdict == "FAIL" for r in confirm_failures([gate(k) for k in release], 0.05)) for release in draws]
    assert alone > 0.2 and np.mean(failed) <= 0.05


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_every_result_can_be_written_as_json(items: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in items], [b for _, b in items]
    rates, pairs = Rate.of(first, None, 0.9), PairedCounts.of(first, second, None, 0.9)
    assert rates and pairs
    results = [
        floor_gate(rates, 0.5, 0.05),
        retention_gate(pairs, 0.9, 0.05),
        drop_gate("x", pairs, 0.02, 0.05),
        better_gate(pairs, 0.05),
    ]
    for result in confirm_failures(results, 0.05):
        assert json.loads(json.dumps(result.to_json(), allow_nan=False))["verdict"] == result.verdict
        assert result.detail.endswith(".")


@pytest.mark.parametrize(
    "call",
    [
        lambda: floor_gate(rate(1, 4), 1.5, 0.05),
        lambda: floor_gate(rate(1, 4), 0.5, 0.5),
        lambda: retention_gate(pair(1, 1, 8), 0.9, 0.7),
        lambda: drop_gate("x", pair(1, 1, 8), 1.1, 0.05),
        lambda: drop_gate("x", pair(1, 1, 8), 0.02, 0.0),
        lambda: better_gate(pair(1, 1, 8), 0.6),
        lambda: limit_gate("x", 1.0, 2.0, low=0.5),
        lambda: limit_gate("x", 1.0, 2.0, low=1.5, high=0.5),
        lambda: limit_gate("x", math.nan, 2.0),
        lambda: limit_gate("x", 1.0, math.inf),
    ],
)
def test_senseless_input_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"must|needs|give both|above"):
        call()
