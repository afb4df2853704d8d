"""What the evaluate stage measures: metrics.json, of a language model and of a classifier.

Every interval is two-sided and has the `confidence` of the whole file, which follows from gates.alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from potstill.core.artifacts.answers import ERROR_NAMES, AnswerError
from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.calibration import BrierDifference, Calibration
from potstill.core.artifacts.counts import PairedCounts, Rate
from potstill.core.artifacts.readings import Readings
from potstill.core.artifacts.worth import Worth
from potstill.core.stats import quantile, quantile_interval

__all__ = [
    "ClassifierFidelity",
    "ClassifierMetrics",
    "ClassifierModelMetrics",
    "ClassifierModels",
    "ClassifierPaired",
    "ClassifierSpeed",
    "Fidelity",
    "FidelityDifference",
    "LeakedRows",
    "Median",
    "Metrics",
    "ModelMetrics",
    "ModelName",
    "Models",
    "Paired",
    "PairedCounts",
    "Rate",
    "Regression",
]

ModelName = Literal["teacher", "gguf", "start", "student", "control"]


class Median(Part):
    """A median of positive numbers. Two of the numbers are the ends of its exact interval.

    Where there are too few, `low` is 0 or `high` is None.
    """

    median: float
    low: float
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float], confidence: float) -> Median:
        """Median of at least one value."""
        interval = quantile_interval(values, 0.5, confidence)
        high = interval.high if math.isfinite(interval.high) else None
        return cls(median=quantile(values, 0.5), low=max(0.0, interval.low), high=high)


class LeakedRows(Part):
    """Test rows that were also trained on or used for validation, which are left out of every score, and
    those that count once.

    Two prompts are the same if they differ in case, spaces and punctuation alone.

    rows       number of rows that were also trained on or used for validation
    of         number of rows in the test file
    row_ids    their prompts, each once
    repeated   number of rows that repeat an earlier test row
    """

    rows: int
    of: int
    row_ids: tuple[str, ...]
    repeated: int = 0

    @property
    def sentence(self) -> str:
        """What a report says about these rows; empty without any."""
        said = []
        if self.rows:
            were, are = ("was", "is") if self.rows == 1 else ("were", "are")
            used = f"{were} also trained on or used for validation, and {are}"
            said.append(f"{self.rows:,} of {self.of:,} test rows {used} left out of every score.")
        if self.repeated:
            repeat = "row repeats an earlier one, and is" if self.repeated == 1 else "rows repeat earlier ones, and are"
            said.append(f"{self.repeated:,} of {self.of:,} test {repeat} not counted again.")
        return " ".join(said)


# ---- language models ----


class Fidelity(Part):
    """How close a model's distributions are to the teacher's, on the teacher's own text.

    KL divergences (teacher to model) are in nats per token, `top1_agreement` is a fraction of `tokens` positions in
    `rows` rows. The ends `_low` and `_high` are those of intervals over rows, because tokens of one row are not
    independent.

    kl_high       None where there are too few rows
    lower_bound   the teacher gave only a part of its distributions, so the true KL is at least this
    """

    kl_mean: float
    kl_p99: float
    top1_agreement: float
    kl_low: float
    kl_high: float | None
    top1_low: float
    top1_high: float
    tokens: int
    rows: int
    lower_bound: bool = False


class FidelityDifference(Part):
    """Mean KL of one model minus that of another, on the same tokens, with its interval; in nats per token."""

    kl: float
    low: float
    high: float


class ModelMetrics(Part):
    """What was measured on one model; None where a model has no such number.

    params         number of parameters
    bytes          size of its weights' files
    format         number format of the weights in these files, such as F32, BF16 or Q8_0
    behaviours     exact match by behaviour
    schema_valid   answers whose tool calls fit the tools' schemas, of answers that call a tool
    tools          exact match of the rows that ask for a tool, by its name
    errors         number of wrong answers by what is wrong with them
    fidelity       None for the teacher itself, and where the teacher gives no distributions
    readings       None for a model that does not answer through llama.cpp's chat endpoint
    """

    params: int | None
    bytes: int | None
    format: str | None
    exact: Rate | None
    behaviours: dict[str, Rate]
    schema_valid: Rate | None
    tools: dict[str, Rate] = Field(default_factory=dict)
    errors: dict[AnswerError, int] = Field(default_factory=dict)
    fidelity: Fidelity | None = None
    readings: Readings | None = None

    def mistakes(self, whose: str) -> str:
        """A sentence that counts the wrong answers by kind, the most frequent first; empty without any."""
        kinds = sorted(self.errors, key=lambda kind: -self.errors[kind])
        counts = ", ".join(f"{ERROR_NAMES[kind]} {self.errors[kind]:,}" for kind in kinds)
        total = sum(self.errors.values())
        return f"{total:,} wrong {'answer' if total == 1 else 'answers'} of {whose}: {counts}." if total else ""


class Models(Part):
    """The measured models: `student` is the trained checkpoint, `gguf` the shipped file made from it.

    start   the student before training; None where its weights were random
    """

    teacher: ModelMetrics
    start: ModelMetrics | None
    student: ModelMetrics
    control: ModelMetrics | None
    gguf: ModelMetrics

    def present(self) -> Iterator[tuple[ModelName, ModelMetrics]]:
        """Name and metrics of each model that the run has."""
        yield "teacher", self.teacher
        yield "gguf", self.gguf
        if self.start is not None:
            yield "start", self.start
        yield "student", self.student
        if self.control is not None:
            yield "control", self.control

    @property
    def teacher_as_shipped(self) -> int | None:
        """Bytes that the teacher would have in the shipped file's format, by their numbers of parameters."""
        teacher, shipped = self.teacher.params, self.gguf
        return round(shipped.bytes * teacher / shipped.params) if teacher and shipped.params and shipped.bytes else None

    def gain(self) -> str:
        """The effect of training on the student and its control, in one or two sentences; empty without a start."""
        if self.start is None:
            return ""
        trained = {"the student": self.student, "its control": self.control}
        present = {name: model for name, model in trained.items() if model is not None}
        found = []
        if self.start.exact and all(model.exact for model in present.values()):
            counts = [f"{name} {model.exact.k:,}" for name, model in present.items() if model.exact]
            found.append(
                f"Before training, the student had {self.start.exact.k:,} of {self.start.exact.n:,} test rows right; "
                f"after it, {' and '.join(counts)}."
            )
        if self.start.fidelity and all(model.fidelity for model in present.values()):
            nats = [f"{name} {model.fidelity.kl_mean:.3g}" for name, model in present.items() if model.fidelity]
            found.append(
                f"The KL from the teacher was {self.start.fidelity.kl_mean:.3g} nats per token before training; after "
                f"it, {' and '.join(nats)}."
            )
        return " ".join(found)


class Paired(Part):
    """Comparisons of two models on the same items, in the order of the names; None without such items."""

    gguf_vs_teacher: PairedCounts | None
    student_vs_control: PairedCounts | None
    gguf_vs_student: PairedCounts | None
    student_vs_control_kl: FidelityDifference | None = None
    student_vs_start: PairedCounts | None = None
    student_vs_start_kl: FidelityDifference | None = None
    student_vs_control_brier: BrierDifference | None = None


class Regression(Part):
    """A test row that the teacher answered right and the shipped file (`student`) did not."""

    row_id: str
    behaviour: str
    prompt: str
    teacher: str
    student: str
    expected: str


_UNANSWERED: tuple[AnswerError, ...] = ("cut_off", "unfinished", "refused")


class Metrics(Artifact):
    """All measurements of a language model's run.

    worth         the ladder; None where the test rows have neither right answers nor text of people, or there is one
                  rung
    calibration   of each model that decodes in transformers, where rows have right answers
    """

    FILE: ClassVar[str] = "metrics.json"
    FORMAT: ClassVar[int] = 8

    confidence: float
    models: Models
    paired: Paired
    worth: Worth | None
    calibration: tuple[Calibration, ...]
    regressions: tuple[Regression, ...]
    leaked: LeakedRows

    def findings(self) -> list[str]:
        """What a person must know about the teacher's answers to the test rows."""
        errors = self.models.teacher.errors
        kinds = [kind for kind in _UNANSWERED if errors.get(kind)]
        if not kinds:
            return []
        counts = ", ".join(f"{ERROR_NAMES[kind]}: {errors[kind]:,}" for kind in kinds)
        number = sum(errors[kind] for kind in kinds)
        verb, count = ("is", "It counts") if number == 1 else ("are", "They count")
        return [
            f"evaluate: {number:,} of the teacher's answers to test rows {verb} not whole ({counts}). {count} as wrong."
        ]

    def harm(self, learning_rate: float) -> str:
        """Sentences if training at that rate is shown to have made the student worse; empty otherwise."""
        kl, items, out = self.paired.student_vs_start_kl, self.paired.student_vs_start, []
        if kl and kl.low > 0:
            out.append(f"Training moved the student away from its teacher by {kl.kl:.3g} nats of KL per token.")
        if items and items.word == "worse":
            out.append(f"Training cost the student {items.broken - items.fixed:,} right answers.")
        return " ".join((*out, f"Lower train.learning_rate, which is {learning_rate:g}.")) if out else ""


# ---- classifiers ----


class ClassifierFidelity(Part):
    """Mean KL divergence from the teacher in nats per row, and the fraction of rows with the same predicted class."""

    kl_mean: float
    top1_agreement: float


class ClassifierModelMetrics(Part):
    """What was measured on one classifier; `exact` is its accuracy.

    in_scope, out_of_scope   accuracy by kind of row; None where the recipe does not distinguish them
    """

    params: int
    bytes: int
    exact: Rate
    in_scope: Rate | None
    out_of_scope: Rate | None
    fidelity: ClassifierFidelity | None


class ClassifierModels(Part):
    """The measured classifiers; `start` is the student before training."""

    teacher: ClassifierModelMetrics
    start: ClassifierModelMetrics
    student: ClassifierModelMetrics
    control: ClassifierModelMetrics | None

    def present(self) -> Iterator[tuple[str, ClassifierModelMetrics]]:
        """Name and metrics of each model that the run has."""
        yield "teacher", self.teacher
        yield "start", self.start
        yield "student", self.student
        if self.control is not None:
            yield "control", self.control

    def gain(self) -> str:
        """The effect of training on the student and its control."""
        control = f" and its control {self.control.exact.k:,}" if self.control else ""
        return (
            f"Before training, the student had {self.start.exact.k:,} of {self.start.exact.n:,} test rows right; "
            f"after it, the student {self.student.exact.k:,}{control}."
        )


class ClassifierPaired(Part):
    """Comparisons of two classifiers on the same rows."""

    student_vs_teacher: PairedCounts
    student_vs_control: PairedCounts | None
    student_vs_control_brier: BrierDifference | None


class ClassifierSpeed(Part):
    """Milliseconds per text, tokenization included; `speedup` is the teacher's time over the student's, per text."""

    teacher_ms: Median
    student_ms: Median
    speedup: Median
    threads: int


class ClassifierMetrics(Artifact):
    """All measurements of a classifier's run."""

    FILE: ClassVar[str] = "metrics.json"
    FORMAT: ClassVar[int] = 5

    confidence: float
    models: ClassifierModels
    paired: ClassifierPaired
    worth: Worth
    calibration: tuple[Calibration, ...]
    speed: ClassifierSpeed
    leaked: LeakedRows
