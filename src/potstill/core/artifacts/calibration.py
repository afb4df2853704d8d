"""How well the models' confidence in their answers agrees with how often these are right."""

from __future__ import annotations

from potstill.core.artifacts.base import Part
from potstill.core.artifacts.counts import difference_word
from potstill.core.artifacts.worth import RUNG_NAMES
from potstill.core.format import format_interval, format_level, format_number, format_percent
from potstill.core.stats.calibration import BINS

__all__ = [
    "ANSWER_CONFIDENCE",
    "CALIBRATION_COLUMNS",
    "CALIBRATION_LEAD",
    "CLASS_CONFIDENCE",
    "BrierDifference",
    "Calibration",
]

_TITLES = {"teacher": "the teacher", "student": "distilled student", "control": "plain fine-tuning"}
ANSWER_CONFIDENCE = (
    "The confidence of an answer is the probability that the model itself gives to exactly these words: the product "
    "over its tokens. Where a right answer can be worded in several ways, it is lower than the share of right answers."
)
CLASS_CONFIDENCE = "The confidence is the probability of the class that the model chooses."
CALIBRATION_LEAD = (
    "ECE (expected calibration error) is the mean distance between confidence and share of right answers in "
    f"{BINS} groups of answers. Groups are samples, so a perfectly calibrated model shows the number in parentheses, "
    "and not 0. The Brier score is the mean squared difference between the confidence and 1 for right or 0 for wrong. "
    "Less is better for both."
)
CALIBRATION_COLUMNS = ("model", "answers", "right", "mean confidence", "ECE", "Brier score")
"""Titles of the columns of `Calibration.cells`."""


class Calibration(Part):
    """One model's confidence in `n` answers that are right or wrong.

    The confidence of a classifier is its largest probability. That of a language model is the product of the
    probabilities of its answer's tokens at temperature 1, the end token included.

    model            the model's name, as in `answers-MODEL.jsonl`
    right            share of right answers
    confidence       mean confidence
    over             mean confidence minus share of right answers; positive for a model that is too sure
    over_low         lower end of its interval; None where there are too few answers, and likewise all other ends
    ece              expected calibration error, in groups of the same size
    ece_calibrated   what a perfectly calibrated model with the same confidences shows on average
    brier            Brier score: mean squared difference of the confidence and 1 for right, 0 for wrong
    """

    model: str
    n: int
    right: float
    confidence: float
    over: float
    over_low: float | None
    over_high: float | None
    ece: float
    ece_calibrated: float
    brier: float
    brier_low: float | None
    brier_high: float | None

    @property
    def title(self) -> str:
        """The model, for people."""
        rungs: dict[str, str] = dict(RUNG_NAMES.items())
        return _TITLES.get(self.model) or rungs[self.model]

    def cells(self) -> tuple[str, ...]:
        """A line of a table for people, below `CALIBRATION_COLUMNS`."""
        brier = format_number(self.brier)
        if self.brier_low is not None and self.brier_high is not None:
            brier += f" ({format_interval(self.brier_low, self.brier_high, digits=3)})"
        ece = f"{format_number(self.ece)} (calibrated: {format_number(self.ece_calibrated)})"
        right, confidence = format_percent(self.right), format_percent(self.confidence)
        return self.title, f"{self.n:,}", right, confidence, ece, brier


class BrierDifference(Part):
    """Brier score of one model minus that of another, on the same rows, with its interval; negative is better."""

    brier: float
    low: float
    high: float

    def sentence(self, confidence: float) -> str:
        """The distilled student compared with its control."""
        word = {"better": "worse", "worse": "better"}.get(difference_word(self.low, self.high), "no difference shown")
        interval = f"{format_level(confidence)} interval {format_interval(self.low, self.high, digits=3)}"
        return (
            "The Brier score of the distilled student minus that of the plainly fine-tuned one is "
            f"{format_number(self.brier)} ({interval}): {word}."
        )
