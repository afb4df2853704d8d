"""What the gate stage decides: verdict.json."""

from __future__ import annotations

from typing import ClassVar, Literal

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.speed import MeasuredSpeed

__all__ = ["GateResult", "Verdict", "VerdictWord"]

VerdictWord = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class GateResult(Part):
    """The verdict of one gate and the numbers behind it, each finite or None.

    key         the recipe's key, such as `gates.exact`; empty for a comparison that no key asks for
    name        label for people
    low, high   ends of the interval that decides; its level is the verdict's `confidence`
    unit        unit of value, low, high and threshold; "rate" is a fraction of items, "ratio" student over teacher
    detail      one or more sentences with the counts
    p_value     two-sided probability of such a distance from the threshold by chance; None where it is not computed
    """

    key: str
    name: str
    verdict: VerdictWord
    value: float | None
    low: float | None
    high: float | None
    threshold: float
    unit: str
    detail: str
    p_value: float | None = None


class Verdict(Artifact):
    """The verdict on a run: its gates, and notes that no gate asks for.

    confidence   that of all intervals
    device       what `potstill bench` measured on the target's device; None where nothing was measured there
    """

    FILE: ClassVar[str] = "verdict.json"
    FORMAT: ClassVar[int] = 2

    verdict: VerdictWord
    confidence: float
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    device: MeasuredSpeed | None = None
