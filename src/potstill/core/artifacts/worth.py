"""The worth ladder: the same student, trained with more and more of the teacher, and what each rung adds."""

from __future__ import annotations

from typing import Literal

from potstill.core.artifacts.base import Part
from potstill.core.artifacts.counts import DifferenceWord, difference_word
from potstill.core.format import format_interval, format_number, format_points, format_value
from potstill.core.recipe.worth import RungName

__all__ = ["RUNG_NAMES", "Measure", "RungName", "RungScore", "Step", "Worth"]

Measure = Literal["exact", "nats_per_byte"]

RUNG_NAMES: dict[RungName, str] = {
    "baseline": "bag of words",
    "start": "before training",
    "labels": "right answers only",
    "text": "the teacher's text",
    "distributions": "the teacher's distributions",
    "recipe": "all that the recipe adds",
}
"""What each rung learns from, as a person reads it."""


class Step(Part):
    """A rung compared with the one before it, on the same rows or over the same seeds.

    gain        difference of the values, positive where this rung is better
    low, high   ends of its interval; None where there are too few rows or seeds
    p           two-sided p-value of no difference
    """

    gain: float
    low: float | None
    high: float | None
    p: float

    @property
    def word(self) -> DifferenceWord:
        """Whether this rung is better than the one before, by the interval."""
        if self.low is None or self.high is None:
            return "no difference shown"
        return difference_word(self.low, self.high)


class RungScore(Part):
    """One rung.

    rung          what the rung learns from
    value         mean of its rows, or of its seeds: a rate of right answers, or nats per byte (where less is better)
    low, high     ends of the interval; None where there are too few rows or seeds
    n             number of rows
    seeds         the value of each training seed, where there are several
    step          compared with the rung before; None for the first
    versus_best   compared with the best rung; None for the best
    train_steps   optimizer steps; None for a rung that is not trained
    seconds       seconds of training, wall clock; None for a rung that is not trained
    """

    rung: RungName
    value: float
    low: float | None
    high: float | None
    n: int
    seeds: tuple[float, ...] = ()
    step: Step | None = None
    versus_best: Step | None = None
    train_steps: int | None = None
    seconds: float | None = None

    @property
    def title(self) -> str:
        """What the rung learns from."""
        return RUNG_NAMES[self.rung]


class Worth(Part):
    """The ladder, cheapest rung first.

    measure   what the values are
    over      what the intervals are over: test rows, or training seeds
    teacher   the teacher's own value; None where it has none
    rungs     at least two
    advice    sentences about what would help the student
    """

    measure: Measure
    over: Literal["rows", "seeds"]
    teacher: float | None
    rungs: tuple[RungScore, ...]
    advice: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of the values, as `format_value` takes it."""
        return "rate" if self.measure == "exact" else "nats/byte"

    @property
    def lead(self) -> str:
        """What the lines of the table are."""
        student = "Each line is the same student from the same start, trained with more of the teacher."
        if self.rungs[0].rung == "baseline":
            return f"The first line is no student: it is a classifier that counts words. {student}"
        return student

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the columns of `cells`."""
        exact = self.measure == "exact"
        gain = "gain, points" if exact else "gain, nats per byte"
        return "learnt from", "right" if exact else "nats per byte", "interval", gain, "p"

    def cells(self) -> list[tuple[str, ...]]:
        """The ladder as a table for people: a line for each rung, and the teacher last."""
        lines: list[tuple[str, ...]] = []
        for rung in self.rungs:
            value, interval = format_value(rung.value, self.unit), format_interval(rung.low, rung.high, self.unit)
            gained = (self._gain(rung.step), _p_value(rung.step.p)) if rung.step else ("", "")
            lines.append((rung.title, value, interval, *gained))
        if self.teacher is not None:
            lines.append(("(the teacher)", format_value(self.teacher, self.unit), "", "", ""))
        return lines

    def _gain(self, step: Step) -> str:
        """The gain over the rung before, with its interval."""
        shown = format_points if self.measure == "exact" else "{:+.3f}".format
        ends = "" if step.low is None or step.high is None else f" ({shown(step.low)} to {shown(step.high)})"
        return f"{shown(step.gain)}{ends}"

    @property
    def best(self) -> RungScore:
        """The rung with the best value."""
        return next(rung for rung in self.rungs if rung.versus_best is None)

    @property
    def cheapest(self) -> RungScore:
        """The first rung that is not shown to be worse than the best one."""
        return next(rung for rung in self.rungs if rung.versus_best is None or rung.versus_best.word != "worse")

    @property
    def sentence(self) -> str:
        """Which rung to ship."""
        cheapest, last = self.cheapest, self.rungs[-1]
        if cheapest is last:
            return f"Every cheaper rung is shown to be worse than the last ({last.title})."
        if cheapest is self.best:
            return f"The best rung is {cheapest.title}: no later rung is better."
        return f"The cheapest rung that is not shown to be worse than the best ({self.best.title}) is {cheapest.title}."

    @property
    def interval_sentence(self) -> str:
        """What the intervals are over."""
        if self.over == "rows":
            return "Intervals and p-values are over test rows, for one training seed."
        return f"Intervals and p-values are over {len(self.rungs[-1].seeds)} training seeds, on the same test rows."


def _p_value(p: float) -> str:
    return format_number(p, 2) if p >= 0.0001 else "< 0.0001"
