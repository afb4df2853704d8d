"""The arithmetic of gates: from counts and measurements to PASS, FAIL or INCONCLUSIVE.

Every gate decides by an interval, not by the point estimate: PASS where the whole interval is on the good side of the
threshold, FAIL where all of it is on the bad side. `alpha` is the accepted probability of a wrong verdict, and the
interval has the confidence 1 - 2 alpha. INCONCLUSIVE means that there are too few items for a decision; `detail` says
how many would be enough. The intervals are those of the measured counts, so the same counts have the same interval in
the verdict and on every page.

In every function, `name` is the gate's label and `key` the recipe's key, empty for a comparison without one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from potstill.core.artifacts.metrics import PairedCounts, Rate
from potstill.core.artifacts.verdict import GateResult, VerdictWord
from potstill.core.format import format_interval, format_level, format_p_value, format_percent, format_points_interval
from potstill.core.stats import items_for_pairs, items_for_rate, paired_interval, rate_p_value

__all__ = [
    "better_gate",
    "drop_gate",
    "floor_gate",
    "limit_gate",
    "nothing_right",
    "overall",
    "retention_gate",
    "undecided",
]


def floor_gate(found: Rate, floor: float, alpha: float, *, name: str = "floor", key: str = "") -> GateResult:
    """Is the rate of right answers at least `floor`?

    Raises:
        ValueError: floor or alpha out of range.
    """
    counts = f"{found.k} of {found.n} right: {_measured(found, alpha)}; minimum {format_percent(floor)}."
    return _rate_gate(found, floor, alpha, name=name, key=key, unit="rate", detail=counts)


def retention_gate(
    pair: PairedCounts, minimum: float, alpha: float, *, name: str = "retention", key: str = ""
) -> GateResult:
    """Does the first model get at least `minimum` of the second's (the teacher's) right answers right too?

    Raises:
        ValueError: minimum or alpha out of range.
    """
    if pair.kept is None:
        detail = f"The teacher answered none of {pair.n} items right, so nothing could be kept."
        return _result(key, name, "INCONCLUSIVE", None, None, None, minimum, "ratio", detail)
    detail = (
        f"{pair.kept.k} of the teacher's {pair.kept.n} right answers kept, {pair.broken} lost and {pair.fixed} gained: "
        f"{_measured(pair.kept, alpha)} kept; minimum {format_percent(minimum)}."
    )
    items = pair.n / pair.kept.n  # test items for each one that the teacher gets right
    return _rate_gate(pair.kept, minimum, alpha, name=name, key=key, unit="ratio", detail=detail, items=items)


def _rate_gate(
    found: Rate, floor: float, alpha: float, *, name: str, key: str, unit: str, detail: str, items: float = 1.0
) -> GateResult:
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be between 0 and 1, got {floor}")
    _check_alpha(alpha)
    verdict = _verdict(found.low >= floor, found.high < floor)
    share = found.effective / found.n
    if verdict == "INCONCLUSIVE":
        needed = items_for_rate(found.k * share, found.effective, floor, alpha)
        detail += _would_decide(needed and needed * items / share, found.n * items)
    p = rate_p_value(found.k * share, found.effective, floor)
    return _result(key, name, verdict, found.rate, found.low, found.high, floor, unit, detail, p)


def drop_gate(name: str, pair: PairedCounts, margin: float, alpha: float, *, key: str = "") -> GateResult:
    """Does the first model lose less than `margin` against the second on the same items?

    PASS when the whole interval of the drop is below the margin, FAIL when all of it is above the margin: a loss that
    is shown and smaller than the accepted one does not fail.

    Args:
        margin: largest acceptable drop, as a fraction of items.

    Raises:
        ValueError: margin is not in [0, 1], or alpha is not in (0, 0.5).
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"margin must be between 0 and 1, got {margin}")
    _check_alpha(alpha)
    drop, low, high = -pair.gain + 0.0, -pair.high, -pair.low
    verdict = _verdict(high < margin, low > margin)
    detail = (
        f"{pair.broken} items lost and {pair.fixed} gained of {pair.n}: drop {format_percent(drop)} "
        f"({format_level(1 - 2 * alpha)} interval {format_interval(low, high, 'rate')}); "
        f"at most {format_percent(margin)} accepted."
    )
    if verdict == "INCONCLUSIVE":
        detail += _pairs_would_decide(pair.broken, pair.fixed, pair, margin, alpha)
    p = _drop_p_value(pair, margin) if verdict == "FAIL" else None
    return _result(key, name, verdict, drop, low, high, margin, "rate", detail, p)


def better_gate(
    pair: PairedCounts,
    alpha: float,
    *,
    name: str = "better than control",
    control: str = "plain fine-tuning",
    key: str = "",
) -> GateResult:
    """Is the first model better than the second, the control, on the same items?

    PASS when the interval of the gain is above 0, FAIL when it is below 0; so the exact McNemar test decides.

    Raises:
        ValueError: alpha is not in (0, 0.5).
    """
    _check_alpha(alpha)
    says = {
        "better": f"Better than {control}",
        "worse": f"Worse than {control}",
        "no difference shown": f"No difference from {control} shown",
    }
    verdict = _verdict(pair.word == "better", pair.word == "worse")
    detail = (
        f"{says[pair.word]}: {pair.fixed} gained and {pair.broken} lost of {pair.n} items, gain "
        f"{format_points_interval(pair.gain, pair.low, pair.high, 1 - 2 * alpha)}; {format_p_value(pair.p_value)}."
    )
    if verdict == "INCONCLUSIVE":
        detail += _pairs_would_decide(pair.fixed, pair.broken, pair, 0.0, alpha)
    return _result(key, name, verdict, pair.gain, pair.low, pair.high, 0.0, "rate", detail, pair.p_value)


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


def nothing_right(teacher: Rate) -> str:
    """What a verdict says about a teacher without any right answer."""
    return (
        f"The teacher has 0 of {teacher.n} test rows right, so there is nothing to keep. Fine-tune it "
        "(teacher.finetune) longer or with a higher learning rate, or use another teacher."
    )


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


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha}")


def _measured(found: Rate, alpha: float) -> str:
    level, interval = format_level(1 - 2 * alpha), format_interval(found.low, found.high, "rate")
    return f"{format_percent(found.rate)} ({level} interval {interval})"


def _drop_p_value(pair: PairedCounts, margin: float) -> float:
    """Two-sided p-value of a drop that is as large as the margin, for a drop that is larger."""
    share = pair.effective / pair.n
    low, high = 0.0, 1.0  # the interval at confidence 1 - p has its low end at the margin
    for _ in range(30):
        p = (low + high) / 2
        interval = paired_interval(pair.broken * share, pair.fixed * share, pair.effective, 1 - p)
        low, high = (low, p) if interval.low > margin else (p, high)
    return high


def _pairs_would_decide(more: int, fewer: int, pair: PairedCounts, threshold: float, alpha: float) -> str:
    share = pair.effective / pair.n
    needed = items_for_pairs(more * share, fewer * share, pair.effective, threshold, alpha)
    return _would_decide(needed and needed / share, pair.n)


def _would_decide(needed: float | None, n: float) -> str:
    if needed is None:
        return " No number of items would decide this at the observed rates."
    return f" About {max(math.floor(n) + 1, math.ceil(needed)):,} items would decide it if the rates stay as they are."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
