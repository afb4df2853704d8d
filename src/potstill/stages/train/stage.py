"""Train the student by distillation, and its matched control by plain fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.components.training.distillation import StudentInputs
from potstill.core.artifacts.training import Trained
from potstill.core.environment import is_first_process
from potstill.core.recipe import Recipe
from potstill.core.steps import Done, Stage

__all__ = ["STAGE", "TrainInputs"]


@dataclass(frozen=True, kw_only=True)
class TrainInputs(StudentInputs):
    """What the training of the student depends on.

    control   whether a control is trained too
    """

    control: bool


def _inputs(recipe: Recipe, done: Done) -> TrainInputs:
    return TrainInputs.of(recipe, done, control=recipe.train.has_control)


def run(inputs: TrainInputs, out: Path) -> None:
    """Train `out/student` and, if the recipe wants one, `out/control`, from the same start on the same batches.

    `out/start` has the weights before training, unless they are random.

    Raises:
        DataError: a row cannot be trained on.
        RecipeError: the recipe does not fit the models.
        StepError: stored targets are missing, the loss is not finite, or the processes cannot train this together.
    """
    from potstill.components.training.distillation import StudentTraining

    training = StudentTraining(inputs, out)
    task, setup = training.task(inputs.objective), training.setup()
    if inputs.student.init != "scratch":
        setup.save_start(training.start.build)
    student = setup.fit("student", training.start.build, task)
    control = None
    if inputs.control:
        control = setup.fit("control", training.start.build, training.text_task())
    if is_first_process():
        Trained(student=student, control=control, vocabulary=training.rows.chat.vocab_size).write(out)


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Trained.read(folder).findings()


STAGE = Stage("train", ("finetune", "generate", "targets"), _inputs, run, version=8, together=True, confirm=_confirm)
