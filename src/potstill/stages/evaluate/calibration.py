"""How well each model's confidence in its answers agrees with how often they are right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.calibration import BrierDifference, Calibration
from potstill.core.stats import brier_scores, calibrated_error, calibration_error
from potstill.stages.evaluate.means import by_group, finite_ends, ratio_interval

__all__ = ["Confidences", "answers_brier_difference", "answers_calibration", "brier_difference", "calibration"]


@dataclass(frozen=True)
class Confidences:
    """A model's confidence in its answer to each row, whether this is right, and the row's group; None: no group."""

    values: Sequence[float]
    right: Sequence[bool]
    groups: Sequence[str | None]

    @classmethod
    def of(cls, answers: Sequence[JudgedAnswer]) -> Confidences | None:
        """Of the answers that are judged; None where there are none, or where one has no confidence."""
        judged = [answer for answer in answers if answer.exact is not None]
        values = [answer.confidence for answer in judged if answer.confidence is not None]
        if not judged or len(values) < len(judged):
            return None
        return cls(values, [bool(answer.exact) for answer in judged], [answer.group for answer in judged])


def calibration(model: str, found: Confidences, level: float) -> Calibration:
    """All numbers of a model; intervals of that confidence level are over rows, those of one group together."""
    brier = brier_scores(found.values, found.right)
    apart = [value - hit for value, hit in zip(found.values, found.right, strict=True)]
    n = len(brier)
    over_ends, brier_ends = (_ends(values, found.groups, level) for values in (apart, brier))
    return Calibration(
        model=model,
        n=n,
        right=sum(found.right) / n,
        confidence=math.fsum(found.values) / n,
        over=math.fsum(apart) / n,
        over_low=over_ends[0],
        over_high=over_ends[1],
        ece=calibration_error(found.values, found.right),
        ece_calibrated=calibrated_error(found.values),
        brier=math.fsum(brier) / n,
        brier_low=None if brier_ends[0] is None else max(0.0, brier_ends[0]),
        brier_high=None if brier_ends[1] is None else min(1.0, brier_ends[1]),
    )


def answers_calibration(answers: Mapping[str, Sequence[JudgedAnswer] | None], level: float) -> tuple[Calibration, ...]:
    """Of each language model by its name. Those whose confidence is not known are left out, and so are rungs of other
    training seeds than the first."""
    known = {model: Confidences.of(said) for model, said in answers.items() if said and "-" not in model}
    return tuple(calibration(model, found, level) for model, found in known.items() if found)


def answers_brier_difference(
    first: Sequence[JudgedAnswer] | None, second: Sequence[JudgedAnswer] | None, level: float
) -> BrierDifference | None:
    """`brier_difference` of two language models; None where one has no answers, or its confidence is not known."""
    return brier_difference(Confidences.of(first or ()), Confidences.of(second or ()), level)


def brier_difference(first: Confidences | None, second: Confidences | None, level: float) -> BrierDifference | None:
    """The first model's Brier score minus the second's on the same rows; None where one is not known, or where there
    are too few rows."""
    if first is None or second is None:
        return None
    scores = (brier_scores(found.values, found.right) for found in (first, second))
    apart = [a - b for a, b in zip(*scores, strict=True)]
    low, high = _ends(apart, first.groups, level)
    if low is None or high is None:
        return None
    return BrierDifference(brier=math.fsum(apart) / len(apart), low=low, high=high)


def _ends(values: Sequence[float], groups: Sequence[str | None], level: float) -> tuple[float | None, float | None]:
    """Of the interval of the mean."""
    return finite_ends(ratio_interval(*by_group(values, [1] * len(values), groups), level))
