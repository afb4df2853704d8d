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
from scipy.stats import binom, norm

from potstill.core.artifacts.verdict import GateResult, VerdictWord
from potstill.core.stats import (
    holm,
    mcnemar_exact,
    paired_drop_interval,
    paired_ratio_interval,
    wilson_lower,
    wilson_upper,
)
from potstill.stages.gate.gates import (
    better_gate,
    floor_gate,
    limit_gate,
    overall,
    paired_gate,
    paired_gates,
    retention_gate,
)

Pair = tuple[list[bool], list[bool]]


def pair(lost: int, gained: int, n: int, both: int | None = None) -> Pair:
    """Results (new, old) with so many items lost, gained, and right in both (default: all the rest)."""
    both = n - lost - gained if both is None else both
    neither = n - lost - gained - both
    new = [False] * lost + [True] * gained + [True] * both + [False] * neither
    old = [True] * lost + [False] * gained + [True] * both + [False] * neither
    return new, old


def items_needed(result: GateResult) -> int:
    """The number of items that would decide, by the gate's detail."""
    return int(result.detail.split("About ")[1].split(" ")[0])


# ---- floor ----


@pytest.mark.parametrize(
    ("k", "n", "verdict"), [(95, 100, "PASS"), (90, 100, "INCONCLUSIVE"), (82, 100, "INCONCLUSIVE"), (70, 100, "FAIL")]
)
def test_floor_gate(k: int, n: int, verdict: VerdictWord) -> None:
    result = floor_gate(k, n, 0.85, 0.05)
    assert result.verdict == verdict
    assert result.value == k / n
    assert (result.low, result.high) == (wilson_lower(k, n, 0.05), wilson_upper(k, n, 0.05))


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.02, 0.98))
def test_floor_gate_decides_by_its_bounds(n: int, share: float, floor: float) -> None:
    result = floor_gate(round(share * n), n, floor, 0.05)
    assert result.low is not None
    assert result.high is not None
    assert (result.verdict == "PASS") == (result.low >= floor)
    assert (result.verdict == "FAIL") == (result.high < floor)


def test_floor_gate_says_how_many_items_decide() -> None:
    assert (
        items_needed(floor_gate(90, 100, 0.85, 0.05)) == math.ceil(norm.isf(0.05) ** 2 * 0.85 * 0.15 / 0.05**2) == 138
    )
    assert floor_gate(126, 140, 0.85, 0.05).verdict == "PASS"  # the same rate, just more and just fewer than 138
    assert floor_gate(117, 130, 0.85, 0.05).verdict == "INCONCLUSIVE"
    assert "No number of items" in floor_gate(85, 100, 0.85, 0.05).detail
    assert "No number of items" in floor_gate(100, 100, 1.0, 0.05).detail


def test_floor_gate_edges() -> None:
    assert floor_gate(0, 0, 0.5, 0.05).verdict == "INCONCLUSIVE"
    assert floor_gate(0, 10, 0.0, 0.05).verdict == "PASS"
    assert floor_gate(999, 1000, 1.0, 0.05).verdict == "FAIL"


# ---- retention ----


def test_retention_gate_is_the_ratio_on_the_same_items() -> None:
    student, teacher = pair(16, 6, 161, both=59)
    result = retention_gate(student, teacher, 0.9, 0.025)
    assert result.value == pytest.approx(65 / 75)
    assert result.low == pytest.approx(0.7476, abs=5e-5)  # Cavo et al. (2012), in Fagerland et al. (2014)
    assert result.high == pytest.approx(0.9876, abs=5e-5)
    assert result.verdict == "INCONCLUSIVE"
    assert retention_gate(student, teacher, 0.74, 0.025).verdict == "PASS"
    assert retention_gate(student, teacher, 0.99, 0.025).verdict == "FAIL"


def test_retention_gate_says_how_many_items_decide() -> None:
    student, teacher = pair(16, 6, 161, both=59)
    for minimum in (0.8, 0.95):
        needed = items_needed(retention_gate(student, teacher, minimum, 0.05))
        times = math.ceil(needed / 161 * 1.05)
        larger = retention_gate(student * times, teacher * times, minimum, 0.05)
        assert larger.verdict == ("PASS" if minimum < 65 / 75 else "FAIL")
        assert needed > 161
    assert "No number of items" in retention_gate([True, False], [False, True], 1.0, 0.05).detail


def test_retention_gate_needs_a_teacher_that_is_right() -> None:
    for student, teacher in (([True] * 5, [False] * 5), ([], [])):
        result = retention_gate(student, teacher, 0.9, 0.05)
        assert (result.verdict, result.value, result.low) == ("INCONCLUSIVE", None, None)


def test_a_student_equal_to_its_teacher_needs_enough_items() -> None:
    assert retention_gate([True] * 51, [True] * 51, 0.95, 0.05).verdict == "INCONCLUSIVE"
    assert retention_gate([True] * 52, [True] * 52, 0.95, 0.05).verdict == "PASS"  # z^2 m/(1 - m) = 51.4


@pytest.mark.parametrize("n", [100, 400])
def test_retention_gate_errs_as_often_as_alpha_says(n: int) -> None:
    """At the minimum itself, PASS and FAIL are both wrong: each about alpha, whatever the teacher's rate."""
    for teacher, kept, gained in ((0.9, 0.95, 0.02), (0.8, 0.9, 0.05), (0.6, 1.0, 0.08)):
        both = teacher * kept - gained
        lost = teacher - both
        cells = [both, lost, gained, 1 - both - lost - gained]
        interval = lru_cache(None)(lambda a, b, c: paired_ratio_interval(a, b, c, 0.9))
        draws = np.random.default_rng(n).multinomial(n, cells, size=3000).tolist()
        passed = np.mean([interval(a, b, c).low >= kept for a, b, c, _ in draws])
        failed = np.mean([interval(a, b, c).high < kept for a, b, c, _ in draws])
        assert 0.025 < passed < 0.065
        assert 0.025 < failed < 0.070


# ---- paired ----


@pytest.mark.parametrize(
    ("lost", "gained", "n", "verdict"),
    [
        (0, 0, 500, "PASS"),
        (0, 0, 100, "INCONCLUSIVE"),
        (25, 25, 500, "INCONCLUSIVE"),
        (10, 30, 500, "PASS"),
        (35, 15, 500, "FAIL"),
        (78, 77, 1546, "PASS"),
        (0, 0, 0, "INCONCLUSIVE"),
    ],
)
def test_paired_gate(lost: int, gained: int, n: int, verdict: VerdictWord) -> None:
    result = paired_gate("suite", *pair(lost, gained, n), margin=0.02, alpha=0.05)
    assert result.verdict == verdict
    assert result.p_value == pytest.approx(mcnemar_exact(lost, gained))
    if n:
        assert result.value == pytest.approx((lost - gained) / n)
        interval = paired_drop_interval(lost, gained, n, 0.9)
        assert (result.low, result.high) == (interval.low, interval.high)


def test_a_significant_drop_fails_even_within_the_margin() -> None:
    result = paired_gate("suite", *pair(20, 2, 5000), margin=0.02, alpha=0.05)
    assert result.high is not None
    assert result.high < 0.02
    assert result.verdict == "FAIL"


def test_paired_gate_says_how_many_items_decide() -> None:
    assert items_needed(paired_gate("suite", *pair(25, 25, 500), margin=0.02, alpha=0.05)) == 1546
    # More items than an unchanged model needs, and still no verdict: the count is taken at the observed drop instead.
    crowded = paired_gate("suite", *pair(110, 90, 2000), margin=0.015, alpha=0.05)
    assert crowded.verdict == "INCONCLUSIVE"
    assert "if the models are equally good" in crowded.detail
    beyond = paired_gate("suite", *pair(220, 190, 4000), margin=0.015, alpha=0.05)
    assert beyond.verdict == "INCONCLUSIVE"
    needed = items_needed(beyond)
    assert needed > 4000
    scale = needed / 4000 * 1.02
    later = pair(round(220 * scale), round(190 * scale), round(4000 * scale))
    assert paired_gate("suite", *later, margin=0.015, alpha=0.05).verdict != "INCONCLUSIVE"


def test_paired_gates_adjust_by_holm() -> None:
    suites = {"a": pair(16, 6, 200), "b": pair(5, 5, 200), "c": pair(6, 5, 200)}
    alone = [paired_gate(name, *two, margin=0.05, alpha=0.05) for name, two in suites.items()]
    together = paired_gates(suites, margin=0.05, alpha=0.05)
    assert [r.name for r in together] == ["a", "b", "c"]
    assert [r.p_value for r in together] == pytest.approx(holm([r.p_value or 0.0 for r in alone]))
    assert alone[0].verdict == "FAIL"  # p = 0.026
    assert together[0].verdict == "INCONCLUSIVE"  # p = 0.079 among three
    assert paired_gates({}, margin=0.05, alpha=0.05) == []


def _chance_of_failing(n: int, lost: float, gained: float) -> float:
    """Exact chance that McNemar's p is below 0.05, over all counts of discordant items."""
    total = 0.0
    for discordant in range(n + 1):
        weight = binom.pmf(discordant, n, lost + gained)
        if weight > 1e-9:
            b = np.arange(discordant + 1)
            rejects = np.array([mcnemar_exact(int(k), discordant - int(k)) < 0.05 for k in b])
            total += weight * binom.pmf(b, discordant, lost / (lost + gained))[rejects].sum()
    return total


def test_how_often_the_paired_gate_fails_a_release() -> None:
    """500 items, 10 % discordant: an unchanged model in under 4 %, one that dropped 3 points in 64 % (90 % of 1000)."""
    assert _chance_of_failing(500, 0.05, 0.05) == pytest.approx(0.037, abs=0.003)
    assert _chance_of_failing(500, 0.065, 0.035) == pytest.approx(0.64, abs=0.02)
    assert _chance_of_failing(1000, 0.065, 0.035) == pytest.approx(0.90, abs=0.02)


def test_simulated_releases_through_the_whole_gate() -> None:
    rng = np.random.default_rng(0)
    verdicts: dict[str, list[str]] = {"same": [], "worse": []}
    for _ in range(400):
        u = rng.random(500)
        old = rng.random(500) < 0.85
        for kind, lost in (("same", 0.05), ("worse", 0.065)):
            flips = np.where(old, u < lost / 0.85, u < (0.10 - lost) / 0.15)
            verdicts[kind].append(paired_gate(kind, (old ^ flips).tolist(), old.tolist(), 0.02, 0.05).verdict)
    assert np.mean([v == "FAIL" for v in verdicts["same"]]) < 0.07
    assert np.mean([v == "FAIL" for v in verdicts["worse"]]) == pytest.approx(0.64, abs=0.08)
    assert np.mean([v == "PASS" for v in verdicts["worse"]]) < 0.05  # a drop beyond the margin hardly ever passes


# ---- better than the control ----


def test_better_gate() -> None:
    better = better_gate(*pair(6, 16, 200), alpha=0.05)
    assert better.verdict == "PASS"
    assert better.value == pytest.approx(0.05)
    assert better.p_value == pytest.approx(0.052479 / 2, abs=1e-6)
    worse = better_gate(*pair(16, 6, 200), alpha=0.05)
    assert worse.verdict == "FAIL"
    assert worse.detail.startswith("Worse than plain fine-tuning on these items")
    even = better_gate(*pair(10, 12, 200), alpha=0.05)
    assert even.verdict == "INCONCLUSIVE"
    assert even.detail.startswith("No better than plain fine-tuning on these items")
    assert "No number of items" in better_gate(*pair(3, 3, 200), alpha=0.05).detail
    assert better_gate([], [], alpha=0.05).verdict == "INCONCLUSIVE"


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 50))
def test_better_gate_is_fair_to_both_sides(lost: int, gained: int, rest: int) -> None:
    n = lost + gained + rest
    one, other = better_gate(*pair(lost, gained, n), alpha=0.05), better_gate(*pair(gained, lost, n), alpha=0.05)
    swapped = {"PASS": "FAIL", "FAIL": "PASS", "INCONCLUSIVE": "INCONCLUSIVE"}
    assert other.verdict == swapped[one.verdict]
    assert one.value == pytest.approx(-(other.value or 0.0))


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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_every_result_can_be_written_as_json(items: list[tuple[bool, bool]]) -> None:
    new, old = [a for a, _ in items], [b for _, b in items]
    results = [
        floor_gate(sum(new), len(new), 0.5, 0.05),
        retention_gate(new, old, 0.9, 0.05),
        paired_gate("x", np.array(new, dtype=bool), np.array(old, dtype=bool), 0.02, 0.05),  # type: ignore[arg-type]
        better_gate(new, old, 0.05),
    ]
    for result in results:
        assert json.loads(json.dumps(result.to_json(), allow_nan=False))["verdict"] == result.verdict
        assert result.detail.endswith(".")


@pytest.mark.parametrize(
    "call",
    [
        lambda: floor_gate(5, 4, 0.5, 0.05),
        lambda: floor_gate(1, 4, 1.5, 0.05),
        lambda: floor_gate(1, 4, 0.5, 0.5),
        lambda: retention_gate([True], [True, False], 0.9, 0.05),
        lambda: retention_gate([True], [True], 0.0, 0.05),
        lambda: retention_gate([True], [True], 0.9, 0.7),
        lambda: paired_gate("x", [True], [], 0.02, 0.05),
        lambda: paired_gate("x", [True], [True], 0.0, 0.05),
        lambda: paired_gate("x", [True], [True], 0.02, 0.0),
        lambda: better_gate([True], [], 0.05),
        lambda: limit_gate("x", 1.0, 2.0, low=0.5),
        lambda: limit_gate("x", 1.0, 2.0, low=1.5, high=0.5),
        lambda: limit_gate("x", math.nan, 2.0),
        lambda: limit_gate("x", 1.0, math.inf),
    ],
)
def test_senseless_input_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"must|needs|give both|above"):
        call()
