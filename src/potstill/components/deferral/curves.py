"""Risk against coverage: how well a score sorts wrong answers to the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from potstill.core.artifacts.policy import ScoreName

__all__ = ["area_under_risk", "choose_score", "excess_area"]


def area_under_risk(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """Area under the risk-coverage curve (AURC): mean risk among the first k answers by score, over k = 1..n.

    Answers of equal score have no order, so the mean over all their orders is taken, which is exact and needs no draws.

    Source: Geifman, Uziel and El-Yaniv (2019), ICLR, "Bias-reduced uncertainty estimation for deep neural classifiers".

    Raises:
        ValueError: no answer, sequences of different lengths, or a score that is not a number.
    """
    _check(scores)
    pairs = sorted(zip(scores, wrong, strict=True), key=lambda pair: -pair[0])
    risks, before, errors = [], 0, 0
    for _, found in groupby(pairs, key=lambda pair: pair[0]):
        group = [bool(miss) for _, miss in found]
        share = sum(group) / len(group)
        risks += [(errors + share * j) / (before + j) for j in range(1, len(group) + 1)]
        before, errors = before + len(group), errors + sum(group)
    return math.fsum(risks) / len(risks)


def excess_area(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """AURC beyond that of an oracle that puts every wrong answer last; 0 is the best.

    Raises:
        ValueError: as `area_under_risk`.
    """
    return area_under_risk(scores, wrong) - area_under_risk([-float(miss) for miss in wrong], wrong)


def choose_score(
    scores: Mapping[ScoreName, Sequence[float]], wrong: Sequence[bool]
) -> tuple[ScoreName, dict[ScoreName, float]]:
    """The score with the smallest excess AURC, and that of each; of equal ones, the first.

    Raises:
        ValueError: no score, or as `area_under_risk`.
    """
    excess = {name: excess_area(values, wrong) for name, values in scores.items()}
    return min(excess, key=lambda name: excess[name]), excess


def _check(scores: Sequence[float]) -> None:
    if not scores:
        raise ValueError("a risk-coverage curve needs at least one answer")
    if any(math.isnan(score) for score in scores):
        raise ValueError("a score is not a number")
