"""How well confidences agree with what is right: expected calibration error and Brier score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeVar

__all__ = ["BINS", "brier_scores", "calibrated_error", "calibration_error"]

Item = TypeVar("Item")

BINS = 15
"""Groups of answers that the calibration error compares."""


def brier_scores(confidences: Sequence[float], right: Sequence[bool]) -> list[float]:
    """Squared difference of each confidence and what it is about, 1 for right and 0 for wrong; their mean is the Brier
    score.

    Source: Brier (1950), Monthly Weather Review 78:1-3, with one category.

    Raises:
        ValueError: sequences of different lengths, or a confidence outside [0, 1].
    """
    _check(confidences)
    return [(confidence - bool(hit)) ** 2 for confidence, hit in zip(confidences, right, strict=True)]


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error: the mean distance between confidence and share of right items, in groups.

    The items, sorted by confidence, are cut into `BINS` groups of nearly the same size. Items of equal confidence count
    with their common share of right ones, so that the order of the items does not matter. Each group is a sample, so a
    model that is calibrated perfectly does not have an error of 0: see `calibrated_error`.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI, for the error; Nguyen and O'Connor (2015), EMNLP, for groups of
    the same size.

    Raises:
        ValueError: no item, sequences of different lengths, or a confidence outside [0, 1].
    """
    _check(confidences)
    pairs = sorted(zip(confidences, map(float, right), strict=True))
    level: list[tuple[float, float]] = []
    for confidence, found in groupby(pairs, key=lambda pair: pair[0]):
        hits = [hit for _, hit in found]
        level += [(confidence, math.fsum(hits) / len(hits))] * len(hits)
    distances = (abs(math.fsum(confidence - hit for confidence, hit in group)) for group in _groups(level))
    return math.fsum(distances) / len(pairs)


def calibrated_error(confidences: Sequence[float]) -> float:
    """The `calibration_error` that a perfectly calibrated model with these confidences shows on average.

    In a group, the number of right items is a sum of independent trials. Its mean distance from its expectation is that
    of a normal variable, or twice the variance where that is less, as it is in a group of near certainties. The sum is
    within a tenth of the exact one unless many confidences are equal.

    Raises:
        ValueError: no item, or a confidence outside [0, 1].
    """
    _check(confidences)
    distances = []
    for group in _groups(sorted(confidences)):
        variance = math.fsum(confidence * (1 - confidence) for confidence in group)
        distances.append(min(math.sqrt(2 / math.pi * variance), 2 * variance))
    return math.fsum(distances) / len(confidences)


def _groups(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in `BINS` groups whose sizes differ by at most 1; fewer where there are fewer items."""
    bins = min(BINS, len(items))
    for number in range(bins):
        yield items[len(items) * number // bins : len(items) * (number + 1) // bins]


def _check(confidences: Sequence[float]) -> None:
    if not confidences:
        raise ValueError("calibration needs at least one confidence")
    for confidence in confidences:
        if not 0 <= confidence <= 1:
            raise ValueError(f"a confidence must be between 0 and 1, got {confidence}")
