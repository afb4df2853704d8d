"""The worth ladder from each rung's score of every test row, for each training seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potstill.core.artifacts.counts import PairedCounts, Rate
from potstill.core.artifacts.training import TrainSummary
from potstill.core.artifacts.worth import Measure, RungName, RungScore, Step, Worth
from potstill.core.stats import mean_interval, mean_p_value
from potstill.stages.evaluate.means import by_group, finite_ends, ratio_interval

__all__ = ["Ladder", "RungScores"]


@dataclass(frozen=True)
class RungScores:
    """The scores of one rung.

    rows          for each training seed, the score of each row: 1 or 0 for right or wrong, or nats
    train_steps   optimizer steps; None for a rung that is not trained
    seconds       of training; None for a rung that is not trained
    """

    rows: Sequence[Sequence[float]]
    train_steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], training: TrainSummary | None) -> RungScores:
        """Scores, and what the rung's training did; None for a rung that is not trained."""
        if training is None:
            return cls(rows)
        return cls(rows, training.steps, training.seconds)


@dataclass(frozen=True)
class Ladder:
    """What all rungs are judged on.

    measure      what a row's score is
    weights      bytes of each row's text for `nats_per_byte`; 1 for each row otherwise
    groups       the group of each row; rows of one group are not independent
    confidence   level of every interval
    """

    measure: Measure
    weights: Sequence[int]
    groups: Sequence[str | None]
    confidence: float

    def worth(self, rungs: Mapping[RungName, RungScores], teacher: float | None) -> Worth:
        """The ladder of at least two rungs, which are in order, the cheapest first."""
        over_seeds = any(len(scores.rows) > 1 for scores in rungs.values())
        names = list(rungs)
        values = {name: self._value(scores.rows) for name, scores in rungs.items()}
        best = max(names, key=lambda name: self._sign * values[name])
        found = []
        for number, (name, scores) in enumerate(rungs.items()):
            low, high = self._interval(scores.rows, over_seeds)
            found.append(
                RungScore(
                    rung=name,
                    value=values[name],
                    low=low,
                    high=high,
                    n=len(self.weights),
                    seeds=tuple(self._value([rows]) for rows in scores.rows) if len(scores.rows) > 1 else (),
                    step=self._compare(scores.rows, rungs[names[number - 1]].rows, over_seeds) if number else None,
                    versus_best=None if name == best else self._compare(scores.rows, rungs[best].rows, over_seeds),
                    train_steps=scores.train_steps,
                    seconds=scores.seconds,
                )
            )
        return Worth(measure=self.measure, over="seeds" if over_seeds else "rows", teacher=teacher, rungs=tuple(found))

    @property
    def _sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.measure == "exact" else -1

    def _value(self, seeds: Sequence[Sequence[float]]) -> float:
        return math.fsum(math.fsum(rows) for rows in seeds) / (len(seeds) * sum(self.weights))

    def _interval(self, seeds: Sequence[Sequence[float]], over_seeds: bool) -> tuple[float | None, float | None]:
        if over_seeds:
            if len(seeds) == 1:  # the same for every seed, such as the student before training
                return None, None
            return finite_ends(mean_interval([self._value([rows]) for rows in seeds], self.confidence))
        if self.measure == "exact":
            rate = Rate.of([bool(score) for score in seeds[0]], self.groups, self.confidence)
            assert rate is not None
            return rate.low, rate.high
        return finite_ends(ratio_interval(*by_group(seeds[0], self.weights, self.groups), self.confidence))

    def _compare(self, first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], over_seeds: bool) -> Step:
        """The first rung's gain over the second."""
        if over_seeds:
            count = max(len(first), len(second))
            pairs = zip(_for_seeds(first, count), _for_seeds(second, count), strict=True)
            gains = [self._sign * (self._value([a]) - self._value([b])) for a, b in pairs]
            low, high = finite_ends(mean_interval(gains, self.confidence))
            return Step(gain=math.fsum(gains) / count, low=low, high=high, p=mean_p_value(gains))
        if self.measure == "exact":
            right = [[bool(score) for score in seeds[0]] for seeds in (first, second)]
            pair = PairedCounts.of(right[0], right[1], self.groups, self.confidence)
            assert pair is not None
            return Step(gain=pair.gain, low=pair.low, high=pair.high, p=pair.p_value)
        apart = [self._sign * (a - b) for a, b in zip(first[0], second[0], strict=True)]
        gains, sizes = by_group(apart, self.weights, self.groups)
        low, high = finite_ends(ratio_interval(gains, sizes, self.confidence))
        total, size = math.fsum(gains), sum(sizes)
        # what the standard error of a ratio is made of, moved to the mean that is tested
        residuals = (gain - total / size * weight for gain, weight in zip(gains, sizes, strict=True))
        p = mean_p_value([residual + total / len(gains) for residual in residuals])
        return Step(gain=total / size, low=low, high=high, p=p)


def _for_seeds(rows: Sequence[Sequence[float]], count: int) -> Sequence[Sequence[float]]:
    """The scores of `count` seeds; a rung that is not trained has the same for each."""
    return rows if len(rows) == count else [rows[0]] * count
