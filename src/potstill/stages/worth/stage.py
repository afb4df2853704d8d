"""Train the other rungs of the worth ladder: the student's start, with less of the teacher or without it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.components.chat.reasoning import as_chosen
from potstill.components.chat.written import fitting_rows
from potstill.components.training.distillation import StudentInputs
from potstill.components.training.rows import training_examples
from potstill.core.artifacts.training import Trained, TrainedRungs, TrainSummary
from potstill.core.environment import is_first_process
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Recipe, RungName
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import Row, read_rows
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from potstill.components.chat.format import Example
    from potstill.components.training.distillation import StudentTraining

__all__ = ["STAGE", "RightAnswers", "WorthInputs"]

_TRIAL_STEPS = 20  # time per step is measured on as many


@dataclass(frozen=True)
class RightAnswers:
    """Where rows with right answers are: the answers that rows have in these files are taken as right.

    train        rows to train on
    train_limit  number of them to use; None: all
    complete     whether each row to train on must have an answer
    validation   rows for validation, and likewise its limit
    tools        tools of rows that name none of their own
    reasoning    whether the thinking in answers is learnt
    """

    train: HashedPath
    train_limit: int | None
    complete: bool
    validation: HashedPath | None
    validation_limit: int | None
    tools: HashedPath | None
    reasoning: Reasoning

    @classmethod
    def of(cls, recipe: Recipe) -> RightAnswers:
        """The files of a recipe: `data.labelled`, or else the prompts."""
        data = recipe.data
        return cls(
            train=HashedPath.of_file(data.labelled or data.prompts),
            train_limit=None if data.labelled else data.limit.get("prompts"),
            complete=data.labelled is not None,
            validation=HashedPath.of_file(data.validation) if data.validation else None,
            validation_limit=data.limit.get("validation"),
            tools=HashedPath.of_file(data.tools) if data.tools else None,
            reasoning=recipe.chat.reasoning,
        )

    def read(self, training: StudentTraining) -> tuple[list[Example], list[Example]]:
        """Rows to train on and rows for validation, in the student's token ids.

        Rows without an answer, and those that are longer than the context, are left out; text that a person wrote is
        cut instead.

        Raises:
            DataError: a file is broken, or a row cannot be trained on.
        """
        tools = self.tools.path if self.tools else None
        train = read_rows(self.train.path, tools=tools, limit=self.train_limit, need_completion=self.complete)
        unseen = read_rows(self.validation.path, tools=tools, limit=self.validation_limit) if self.validation else []
        return self._examples(train, training), self._examples(unseen, training)

    def _examples(self, rows: Sequence[Row], training: StudentTraining) -> list[Example]:
        chat, context = training.rows.chat, training.inputs.chat.context
        answered = as_chosen([row for row in rows if row.completion is not None], self.reasoning)
        return training_examples(fitting_rows(answered, chat, context), chat, context, skip_longer=True)


@dataclass(frozen=True, kw_only=True)
class WorthInputs(StudentInputs):
    """What the other rungs depend on.

    models         rung of each model, by its name
    student_rung   rung that the student itself is
    budget         what all rungs have in common
    answers        rows of the rung `labels`; None without it
    trained        what the student's own training did
    """

    models: dict[str, RungName]
    student_rung: RungName
    budget: Literal["steps", "seconds"]
    answers: RightAnswers | None
    trained: HashedPath


def _inputs(recipe: Recipe, done: Done) -> WorthInputs | None:
    models = recipe.worth_models
    if not models:
        return None
    return WorthInputs.of(
        recipe,
        done,
        models=models,
        student_rung=recipe.student_rung,
        budget=recipe.worth.budget,
        answers=RightAnswers.of(recipe) if "labels" in models else None,
        trained=done.path("train", Trained.FILE),
    )


def run(inputs: WorthInputs, out: Path) -> None:
    """Train each model in the folder of its name; the rung `labels` is left out where no row has a right answer.

    Raises:
        DataError: a row cannot be trained on.
        StepError: stored targets are missing, the loss is not finite, or the processes cannot train this together.
    """
    student = Trained.read(inputs.trained.path.parent).student
    models: dict[str, TrainSummary] = {}
    labelled = 0
    for number, names in groupby(inputs.models, _seed_number):
        found, labelled = _train(inputs, number, list(names), student, out)
        models |= found
    if is_first_process():
        for trial in out.glob("*.trial"):
            shutil.rmtree(trial)
        TrainedRungs(models=models, labelled_rows=labelled).write(out)


def _seed_number(name: str) -> int:
    """1 for the first training seed."""
    return int(name.partition("-")[2] or 1)


def _train(
    inputs: WorthInputs, number: int, names: Sequence[str], student: TrainSummary, out: Path
) -> tuple[dict[str, TrainSummary], int]:
    """Train the models of one seed; what each training did, and the number of rows with right answers.

    The teacher is loaded for these models only, so that no two teachers are in memory.
    """
    from potstill.components.training.distillation import StudentTraining

    training = StudentTraining(replace(inputs, seed=inputs.seed + number - 1), out)
    right = inputs.answers.read(training) if inputs.answers else ([], [])
    found = {
        name: _fit(training, inputs, name, right, student)
        for name in names
        if inputs.models[name] != "labels" or right[0]
    }
    return found, len(right[0])


def _fit(
    training: StudentTraining,
    inputs: WorthInputs,
    name: str,
    right: tuple[list[Example], list[Example]],
    student: TrainSummary,
) -> TrainSummary:
    """Train one model, for as many steps or as many seconds as the student was trained."""
    rung, objective = inputs.models[name], inputs.objective
    setup, start = training.setup(), training.start.build
    if rung == "labels":
        setup = replace(setup, examples=right[0], validation=right[1])
    if rung in ("labels", "text") or objective.name == "sft":
        task = training.text_task()
    else:
        task = training.task(objective.on_text if rung == "distributions" else objective)
    steps = student.steps
    if inputs.budget == "seconds" and rung != inputs.student_rung:
        # without validation, which would take most of so short a training; all seeds of a rung share its trial
        short = replace(setup, validation=())
        trial = short.fit(f"{rung}.trial", start, task, steps=min(_TRIAL_STEPS, steps))
        steps = max(1, round(student.seconds * trial.steps / trial.seconds))
    return setup.fit(name, start, task, steps=steps)


def _confirm(folder: Path, runs: Path) -> list[str]:
    found = TrainedRungs.read(folder)
    return [text for name, model in found.models.items() for text in model.findings(f"rung {name}", "train")]


STAGE = Stage(
    "worth", ("finetune", "generate", "targets", "train"), _inputs, run, version=2, together=True, confirm=_confirm
)
