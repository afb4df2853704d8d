"""Thresholds on a score below which a model does not answer, with a guarantee on the answers above it.

Two promises can be made from n judged answers that are exchangeable with those to come:

- `selective` (learn-then-test): with probability 1 - delta over the n answers, at most a share alpha of the answers
  that are given is wrong.
- `marginal` (conformal risk control): on average over the n answers and the next one, the next one is given and wrong
  with a probability of at most alpha.

An answer is given if its score is at least the threshold. "No threshold keeps the promise" is a result, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.stats.beta import at_least
from potstill.core.stats.intervals import checked_share

__all__ = ["Feasibility", "Tested", "coverage_grid", "feasibility", "fewest_served", "learn_then_test", "risk_control"]

_STEPS = 10
_ROOM = 3.0
"""The strictest threshold gives this many times the fewest answers that can be certified, so that some may be wrong."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A threshold and what was found above it.

    threshold   the score from which on answers are given; None: no threshold keeps the promise
    served      answers at or above it, of those that it was tested on
    wrong       wrong ones among these
    bound       p-value of the promise for `selective`, corrected risk for `marginal`; None without a threshold
    """

    threshold: float | None
    served: int = 0
    wrong: int = 0
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Whether a promise can be kept at all, before any threshold is looked for.

    risk        share of wrong answers if all are given
    abstain     smallest share of answers that any rule must withhold
    fewest      answers that must be given, all of them right, before the promise can be certified
    """

    risk: float
    abstain: float
    fewest: int


def fewest_served(alpha: float, delta: float) -> int:
    """How many answers, all of them right, certify a risk of alpha: ln(delta)/ln(1 - alpha), rounded up."""
    checked_share(alpha, "alpha"), checked_share(delta, "delta")
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def feasibility(wrong: Sequence[bool], alpha: float, delta: float) -> Feasibility:
    """What a promise of the kind `selective` demands.

    A rule that withholds wrong answers only must withhold a share (risk - alpha)/(1 - alpha).

    Raises:
        ValueError: no answer, or alpha or delta is not between 0 and 1.
    """
    if not wrong:
        raise ValueError("feasibility needs at least one judged answer")
    risk = sum(map(bool, wrong)) / len(wrong)
    return Feasibility(risk, max(0.0, (risk - alpha) / (1 - alpha)), fewest_served(alpha, delta))


def coverage_grid(scores: Sequence[float], tested: int, alpha: float, delta: float) -> tuple[float, ...]:
    """Thresholds to test, from strict to loose: quantiles of the scores at about ten coverages.

    The scores must be others than those that the thresholds are tested on, and need no labels. The first coverage
    serves some times as many answers as could be certified without an error, because a test that fails ends the
    sequence, and one with fewer answers fails too easily.

    Args:
        scores: scores of other answers; minus infinity for those that are never given.
        tested: number of answers that the thresholds will be tested on.
        alpha, delta: the promise.

    Raises:
        ValueError: no score.
    """
    if not scores:
        raise ValueError("a grid of thresholds needs at least one score")
    ordered = sorted(scores, reverse=True)
    first = min(1.0, max(1 / _STEPS, _ROOM * fewest_served(alpha, delta) / max(tested, 1)))
    coverages = [first + (1 - first) * step / (_STEPS - 1) for step in range(_STEPS)]
    found = (ordered[min(len(ordered), math.ceil(share * len(ordered))) - 1] for share in coverages)
    return tuple(dict.fromkeys(threshold for threshold in found if threshold > -math.inf))


def learn_then_test(
    scores: Sequence[float], wrong: Sequence[bool], grid: Sequence[float], alpha: float, delta: float
) -> Tested:
    """The loosest threshold of a grid whose risk is certified, by fixed-sequence testing.

    Thresholds are tested in the order of the grid, which must go from strict to loose and must not depend on these
    answers. The test is exact (Clopper and Pearson): p = P(Binomial(served, alpha) <= wrong). The first p above delta
    ends the sequence, so the chance of ever accepting a threshold with a larger risk than alpha is at most delta.

    Source: Angelopoulos, Bates, Candès, Jordan and Lei (2021), "Learn then test", arXiv:2110.01052, section 2.3.

    Raises:
        ValueError: sequences of different lengths, or alpha or delta is not between 0 and 1.
    """
    checked_share(alpha, "alpha"), checked_share(delta, "delta")
    pairs = list(zip(scores, wrong, strict=True))
    accepted = Tested(None)
    for threshold in grid:
        above = [bool(miss) for score, miss in pairs if score >= threshold]
        p = 1 - at_least(sum(above) + 1, len(above), alpha)
        if p > delta:
            break
        accepted = Tested(threshold, len(above), sum(above), p)
    return accepted


def risk_control(scores: Sequence[float], wrong: Sequence[bool], alpha: float) -> Tested:
    """The loosest threshold at which the corrected risk n/(n+1) R + 1/(n+1) is at most alpha.

    R is the share of all n answers that are given and wrong. Answers whose score is minus infinity are never given.

    Source: Angelopoulos, Bates, Fisch, Lei and Schuster (2022), "Conformal risk control", arXiv:2208.02814.

    Raises:
        ValueError: sequences of different lengths, or alpha is not between 0 and 1.
    """
    checked_share(alpha, "alpha")
    pairs = sorted(zip(scores, wrong, strict=True), key=lambda pair: -pair[0])
    n, served, errors = len(pairs), 0, 0
    accepted = Tested(None)
    for position, (score, miss) in enumerate(pairs):
        served, errors = served + 1, errors + bool(miss)
        if score == -math.inf or (errors + 1) / (n + 1) > alpha:
            break
        if position + 1 == n or pairs[position + 1][0] < score:  # answers of equal score are given together
            accepted = Tested(score, served, errors, (errors + 1) / (n + 1))
    return accepted
