"""The arithmetic of gates: from counts and measurements to PASS, FAIL or INCONCLUSIVE.

Every gate decides by a bound, not by the point estimate. `alpha` is the one-sided probability of a wrong verdict, so
`low` and `high` are the ends of an interval with confidence 1 - 2 alpha. INCONCLUSIVE means that there are too few
items for a decision; its `detail` says how many would be enough.

In every function, `name` is the gate's label and `key` the recipe's key, empty for a comparison without one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Literal

from potstill.core.artifacts.verdict import GateResult, VerdictWord
from potstill.core.format import format_percent
from potstill.core.stats import (
    holm,
    items_to_decide,
    mcnemar_exact,
    paired_drop,
    paired_drop_interval,
    paired_ratio_interval,
    wilson_lower,
    wilson_upper,
)

__all__ = [
    "better_gate",
    "floor_gate",
    "limit_gate",
    "overall",
    "paired_gate",
    "paired_gates",
    "retention_gate",
    "undecided",
]

BETA = 0.2  # "would decide it" means with a chance of 80 %


def floor_gate(k: int, n: int, floor: float, alpha: float, *, name: str = "floor", key: str = "") -> GateResult:
    """Is the rate of right answers, k of n, at least `floor`?

    PASS when the one-sided lower Wilson bound is at least the floor, FAIL when the upper bound is below it.

    Raises:
        ValueError: counts, floor or alpha out of range.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be between 0 and 1, got {floor}")
    _confidence(alpha)
    low, high = wilson_lower(k, n, alpha), wilson_upper(k, n, alpha)
    if n == 0:
        return _result(key, name, "INCONCLUSIVE", None, low, high, floor, "rate", "No items were judged.")
    rate = k / n
    verdict = _verdict(low >= floor, high < floor)
    detail = (
        f"{k} of {n} right ({format_percent(rate)}, bounds {format_percent(low)} to {format_percent(high)}); "
        f"minimum {format_percent(floor)}."
    )
    if verdict == "INCONCLUSIVE":
        z = -NormalDist().inv_cdf(alpha)
        # The Wilson bound meets the floor exactly when the score test does: |rate - floor| = z sqrt(floor(1-floor)/n).
        needed = None if rate == floor or floor == 1 else z * z * floor * (1 - floor) / (rate - floor) ** 2
        detail += _would_decide(needed, n)
    return _result(key, name, verdict, rate, low, high, floor, "rate", detail)


def retention_gate(
    student_right: Sequence[bool],
    teacher_right: Sequence[bool],
    minimum: float,
    alpha: float,
    *,
    name: str = "retention",
    key: str = "",
) -> GateResult:
    """Does the student keep at least `minimum` of the teacher's right answers?

    Retention is (student right)/(teacher right) on the same items; its bounds are the score interval of
    `stats.paired_ratio_interval`. PASS when the lower bound is at least the minimum, FAIL when the upper is below it.

    Raises:
        ValueError: the sequences differ in length, the minimum is not positive, or alpha is not in (0, 0.5).
    """
    if not 0 < minimum < math.inf:
        raise ValueError(f"minimum must be positive, got {minimum}")
    lost, gained, both, n = _pairs(student_right, teacher_right)
    interval = paired_ratio_interval(both, lost, gained, _confidence(alpha))
    low, high = interval.low, interval.high
    student, teacher = both + gained, both + lost
    if teacher == 0:
        detail = f"The teacher answered none of {n} items right, so retention is not defined."
        return _result(key, name, "INCONCLUSIVE", None, None, None, minimum, "ratio", detail)
    ratio = student / teacher
    verdict = _verdict(low >= minimum, high < minimum)
    detail = (
        f"The student is right on {student} and the teacher on {teacher} of {n} items: {format_percent(ratio)} "
        f"retained (bounds {format_percent(low)} to {format_percent(high)}); minimum {format_percent(minimum)}."
    )
    if verdict == "INCONCLUSIVE":
        # The distance from estimate to bound shrinks with the root of the number of items.
        reach = ratio - low if ratio > minimum else high - ratio
        needed = None if ratio == minimum else n * (reach / (ratio - minimum)) ** 2
        detail += _would_decide(needed, n)
    return _result(key, name, verdict, ratio, low, _finite(high), minimum, "ratio", detail)


def paired_gate(
    name: str,
    new_right: Sequence[bool],
    old_right: Sequence[bool],
    margin: float,
    alpha: float,
    *,
    p_value: float | None = None,
    key: str = "",
) -> GateResult:
    """Does the new model answer as well as the old one (teacher, control or last release) on the same items?

    FAIL when the exact one-sided McNemar test finds a drop at level alpha. Otherwise PASS when the upper score bound of
    the drop is below `margin`, and INCONCLUSIVE when it is not. A significant drop fails even if it is smaller than the
    margin.

    Args:
        margin: largest acceptable drop, as a fraction of items.
        p_value: the McNemar p-value adjusted for several gates (see `paired_gates`); default: this gate's own.

    Raises:
        ValueError: the sequences differ in length, margin is not in (0, 1), or alpha is not in (0, 0.5).
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin must be between 0 and 1, got {margin}")
    confidence = _confidence(alpha)
    b, c, _, n = _pairs(new_right, old_right)
    if n == 0:
        return _result(key, name, "INCONCLUSIVE", None, None, None, margin, "rate", "No items were judged.", 1.0)
    p = mcnemar_exact(b, c) if p_value is None else p_value
    drop, _ = paired_drop(b, c, n)
    interval = paired_drop_interval(b, c, n, confidence)
    dropped = p < alpha
    verdict = _verdict(not dropped and interval.high < margin, dropped)
    detail = (
        f"{b} items lost and {c} gained of {n}: drop {format_percent(drop)} (bounds {format_percent(interval.low)} to "
        f"{format_percent(interval.high)}), p = {p:.3g}; margin {format_percent(margin)}."
    )
    if verdict == "INCONCLUSIVE":
        detail += _would_decide(*_items_for_drop(b, c, n, margin, alpha))
    return _result(key, name, verdict, drop, interval.low, interval.high, margin, "rate", detail, p)


def paired_gates(
    suites: Mapping[str, tuple[Sequence[bool], Sequence[bool]]], margin: float, alpha: float
) -> list[GateResult]:
    """`paired_gate` for several suites of (new, old); with Holm's adjustment, alpha holds for all of them together.

    Raises:
        ValueError: as `paired_gate`.
    """
    raw = []
    for new_right, old_right in suites.values():
        b, c, _, _ = _pairs(new_right, old_right)
        raw.append(mcnemar_exact(b, c))
    return [
        paired_gate(name, new_right, old_right, margin, alpha, p_value=p)
        for (name, (new_right, old_right)), p in zip(suites.items(), holm(raw), strict=True)
    ]


def better_gate(
    new_right: Sequence[bool],
    old_right: Sequence[bool],
    alpha: float,
    *,
    name: str = "better than control",
    control: str = "plain fine-tuning",
    key: str = "",
) -> GateResult:
    """Is the new model better than the control on the same items, by the exact one-sided McNemar test?

    PASS when it is better at level alpha, FAIL when it is worse at level alpha. `value` is the gain, threshold 0.

    Raises:
        ValueError: the sequences differ in length, or alpha is not in (0, 0.5).
    """
    confidence = _confidence(alpha)
    b, c, _, n = _pairs(new_right, old_right)
    if n == 0:
        return _result(key, name, "INCONCLUSIVE", None, None, None, 0.0, "rate", "No items were judged.", 1.0)
    interval = paired_drop_interval(c, b, n, confidence)
    gain = (c - b) / n
    p = mcnemar_exact(c, b)
    verdict = _verdict(p < alpha, mcnemar_exact(b, c) < alpha)
    says = {
        "PASS": f"Better than {control}",
        "FAIL": f"Worse than {control}",
        "INCONCLUSIVE": f"No better than {control}",
    }
    detail = (
        f"{says[verdict]} on these items: {c} gained and {b} lost of {n}, gain {format_percent(gain)} "
        f"(bounds {format_percent(interval.low)} to {format_percent(interval.high)}), p = {p:.3g}."
    )
    if verdict == "INCONCLUSIVE":
        z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(1 - BETA)
        detail += _would_decide(None if b == c else z * z * (b + c) * n / (c - b) ** 2, n)
    return _result(key, name, verdict, gain, interval.low, interval.high, 0.0, "rate", detail, p)


def limit_gate(
    name: str,
    value: float,
    limit: float,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    kind: Literal["max", "min"] = "max",
    *,
    key: str = "",
) -> GateResult:
    """Is a measurement (memory, latency, speed) within its budget?

    PASS when the whole interval is within the limit (the limit included), FAIL when all of it is beyond the limit,
    otherwise INCONCLUSIVE. Without an interval the value decides. An infinite measurement (a KL where the student gives
    a token no probability) is judged too, and is None in the result.

    Raises:
        ValueError: a number is NaN, the limit is not finite, only one end is given, or low > high.
    """
    if (low is None) != (high is None):
        raise ValueError("give both ends of the interval, or none")
    least, most = (value, value) if low is None or high is None else (low, high)
    if any(map(math.isnan, (value, least, most))) or not math.isfinite(limit):
        raise ValueError(f"{name}: numbers must not be NaN, got {value}, {least} to {most}, limit {limit}")
    if least > most:
        raise ValueError(f"{name}: the interval's low end {least} is above its high end {most}")
    verdict = _verdict(most <= limit, least > limit) if kind == "max" else _verdict(least >= limit, most < limit)
    text = format_percent if unit in ("rate", "ratio") else "{:g}".format
    suffix = f" {unit}" if unit not in ("rate", "ratio", "") else ""
    bounds = "" if low is None else f" ({text(least)} to {text(most)})"
    detail = f"Measured {text(value)}{bounds}{suffix}; {kind}imum {text(limit)}{suffix}."
    if verdict == "INCONCLUSIVE":
        detail += " The interval includes the limit, so more measurements are needed."
    ends = (None, None) if low is None else (_finite(least), _finite(most))
    return _result(key, name, verdict, _finite(value), *ends, limit, unit, detail)


def undecided(key: str, name: str, threshold: float, reason: str) -> GateResult:
    """Result of a gate that the recipe asks for and that has nothing to judge: INCONCLUSIVE, never a silent pass."""
    return _result(key, name, "INCONCLUSIVE", None, None, None, threshold, "", f"Not judged: {reason}.")


def overall(results: Iterable[GateResult]) -> VerdictWord:
    """FAIL if any gate failed; otherwise INCONCLUSIVE if any is, or without gates; otherwise PASS."""
    verdicts = {result.verdict for result in results}
    if "FAIL" in verdicts:
        return "FAIL"
    return "PASS" if verdicts == {"PASS"} else "INCONCLUSIVE"


def _result(
    key: str,
    name: str,
    verdict: VerdictWord,
    value: float | None,
    low: float | None,
    high: float | None,
    threshold: float,
    unit: str,
    detail: str,
    p_value: float | None = None,
) -> GateResult:
    return GateResult(
        key=key, name=name, verdict=verdict, value=value, low=low, high=high, threshold=threshold, unit=unit,
        detail=detail, p_value=p_value,
    )  # fmt: skip


def _verdict(passes: bool, fails: bool) -> VerdictWord:
    return "PASS" if passes else "FAIL" if fails else "INCONCLUSIVE"


def _confidence(alpha: float) -> float:
    """Confidence of the interval whose two ends are one-sided bounds at level alpha."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha}")
    return 1 - 2 * alpha


def _pairs(new_right: Sequence[bool], old_right: Sequence[bool]) -> tuple[int, int, int, int]:
    """Counts of items lost, gained, right in both, and of all items."""
    if len(new_right) != len(old_right):
        raise ValueError(f"paired results must be of the same items, got {len(new_right)} and {len(old_right)}")
    pairs = [(bool(new), bool(old)) for new, old in zip(new_right, old_right, strict=True)]
    lost = sum(old and not new for new, old in pairs)
    gained = sum(new and not old for new, old in pairs)
    return lost, gained, sum(new and old for new, old in pairs), len(pairs)


def _items_for_drop(b: int, c: int, n: int, margin: float, alpha: float) -> tuple[float, int, str]:
    """The number of items that would decide a paired gate, the number at hand, and the condition."""
    needed = items_to_decide(b, c, n, margin, alpha, BETA)
    if needed > n:
        return needed, n, "if the models are equally good"
    # More items than that were not enough, so the drop is not 0. At its observed size, which verdict comes first?
    z = NormalDist().inv_cdf(1 - alpha)
    drop, error = paired_drop(b, c, n)
    to_pass = (z * error / (margin - drop)) ** 2 * n if drop < margin else math.inf
    to_fail = z * z * ((b + c) / n) / drop**2 if drop > 0 else math.inf
    return min(to_pass, to_fail), n, "if the rates stay as they are"


def _would_decide(needed: float | None, n: int, condition: str = "if the rates stay as they are") -> str:
    if needed is None or not math.isfinite(needed):
        return " No number of items would decide this at the observed rates."
    return f" About {max(n + 1, math.ceil(needed))} items would decide it {condition}."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
