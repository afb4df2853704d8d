"""Several gates that can fail one release."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.core.artifacts.verdict import GateResult
from potstill.core.format import format_number
from potstill.core.stats import holm, p_value_from_interval

__all__ = ["confirm_failures"]


def confirm_failures(results: Sequence[GateResult], alpha: float) -> tuple[GateResult, ...]:
    """The results, where a FAIL that is not shown among all these gates is INCONCLUSIVE.

    One gate fails by chance with probability alpha, one of ten much more often. Holm's method keeps the probability
    that any gate of an acceptable model fails at alpha. Passing needs no such correction, because every gate must pass.
    Gates without an interval are measured values and do not fail by chance.
    """
    family = [i for i, result in enumerate(results) if result.low is not None or result.high is not None]
    adjusted = dict(zip(family, holm([_failure(results[i], alpha) for i in family]), strict=True))
    return tuple(
        _confirmed(result, adjusted[i], alpha, len(family)) if i in adjusted else result
        for i, result in enumerate(results)
    )


def _failure(result: GateResult, alpha: float) -> float:
    """One-sided p-value of a failure; 1 for a gate that did not fail, which only counts as one of the family."""
    if result.verdict != "FAIL":
        return 1.0
    if result.p_value is not None:
        return result.p_value / 2
    return p_value_from_interval(result.value, result.low, result.high, result.threshold, 1 - 2 * alpha) / 2


def _confirmed(result: GateResult, adjusted: float, alpha: float, family: int) -> GateResult:
    if result.verdict != "FAIL" or adjusted < alpha:
        return result
    detail = (
        f"{result.detail} The interval is beyond the threshold, but {family} gates can fail by chance: with Holm's "
        f"correction, two-sided p = {format_number(min(1.0, 2 * adjusted), 2)}, and a failure needs less than "
        f"{format_number(2 * alpha, 2)}."
    )
    return result.model_copy(update={"verdict": "INCONCLUSIVE", "detail": detail})
