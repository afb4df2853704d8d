"""The recipe of an encoder with a classification head (`task: classify`), and the sections that only it has."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from potstill.core.recipe.data import LabelledData
from potstill.core.recipe.fields import ELSEWHERE, Count, ModelName, NotNegative, Positive, Section, Share
from potstill.core.recipe.recipe import RecipeFile
from potstill.core.recipe.schedule import Optimization, Schedule, Trainer

__all__ = [
    "ClassifierEvaluate",
    "ClassifierGates",
    "ClassifierRecipe",
    "ClassifierStudent",
    "ClassifierTeacher",
    "ClassifierTrain",
]


class ClassifierTeacher(Section):
    """The model that is distilled."""

    model: ModelName
    """Model folder, or hub id with an optional revision (ID@REVISION), of an encoder such as BERT; required."""
    finetune: Annotated[Optimization | None, ELSEWHERE] = None
    """Training of the teacher on data.train with a new head; default: none, so that it must have these classes."""


class ClassifierStudent(Section):
    """A student as wide as its teacher, with fewer layers."""

    layers: Count
    """Number of the teacher's layers to keep, evenly spaced, the first and the last among them; required."""
    vocabulary: Count | None = None
    """Number of tokens to keep: those of data.train, single characters, then the lowest ids (the most frequent words in
    BERT); default: all."""


class ClassifierTrain(Optimization):
    """The training of the student, and of a control that learns without the teacher."""

    temperature: Positive = 2.0
    """Softmax temperature of teacher and student; the divergence is multiplied by its square; default: 2."""
    hard_label_weight: Share = 0.3
    """Weight of the cross-entropy on the right class, where the divergence has the rest; default: 0.3."""
    cosine_weight: NotNegative = 0.1
    """Weight of 1 - cos between the last hidden states, averaged over a row's tokens; default: 0.1."""
    control: Literal["sft", "none"] = "sft"
    """Control that shows whether distillation paid: `sft` (the same student, on the right classes alone) or `none`;
    default: sft."""


class ClassifierEvaluate(Section):
    """How speed is measured: on single texts, with teacher and student in turn."""

    threads: Count = 2
    """Number of threads of torch; default: 2."""
    latency_requests: Count = 200
    """Number of timed texts; default: 200."""


class ClassifierGates(Section):
    """Thresholds of the verdict. A gate without a threshold is not judged."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Accepted probability of a wrong verdict of a gate. Every interval has the confidence 1 - 2 alpha, so each of its
    ends misses with a probability of at most alpha; default: 0.05, for 90 % intervals."""
    exact: Share | None = None
    """Minimum accuracy, as a fraction; default: not judged."""
    retention: Share | None = None
    """Minimum fraction of the teacher's right answers that the student gets right too; default: not judged."""
    beats_control: bool = False
    """Whether the student must be shown to get more rows right than the control; default: no."""
    parameters: Share | None = None
    """Maximum number of parameters, as a fraction of the teacher's; default: not judged."""
    speedup: Positive | None = None
    """Minimum speed relative to the teacher's, by the time for one text; default: not judged."""

    @property
    def confidence(self) -> float:
        """Confidence of every interval that is printed."""
        return 1 - 2 * self.alpha


class ClassifierRecipe(RecipeFile):
    """A whole run for an encoder with a classification head."""

    task: Literal["classify"]
    """Kind of model; default: a language model."""
    data: LabelledData
    teacher: ClassifierTeacher
    student: ClassifierStudent
    train: ClassifierTrain = ClassifierTrain()
    trainer: Trainer = Trainer()
    evaluate: ClassifierEvaluate = ClassifierEvaluate()
    gates: ClassifierGates = ClassifierGates()

    @property
    def schedule(self) -> Schedule:
        """All settings of the student's training."""
        return Schedule.of(self.train, self.trainer)

    @property
    def finetune_schedule(self) -> Schedule:
        """All settings of the teacher's fine-tuning."""
        assert self.teacher.finetune is not None
        return Schedule.of(self.teacher.finetune, self.trainer)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.gates.beats_control and self.train.control == "none":
            raise ValueError("gates.beats_control needs train.control: sft")
        if "student" in self.licenses:
            raise ValueError(
                "licenses.student: a classifier starts from its teacher; its own licence is licenses.package"
            )
        return self
