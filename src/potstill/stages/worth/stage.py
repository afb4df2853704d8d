"""Train the other rungs of the worth ladder: the student's start, with less of the teacher or without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.components.chat.reasoning import as_chosen
from potstill.components.training.distillation import StudentInputs
from potstill.components.training.rows import training_examples
from potstill.core.artifacts.training import Trained, TrainedRungs, TrainSummary
from potstill.core.environment import is_first_process
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Recipe, Rung
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import read_rows
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
    validation   rows for validation, and likewise its limit
    tools        tools of rows that name none of their own
    reasoning    whether the thinking in answers is learnt
    """

    train: HashedPath
    train_limit: int | None
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
            validation=HashedPath.of_file(data.validation) if data.validation else None,
            validation_limit=data.limit.get("validation"),
            tools=HashedPath.of_file(data.tools) if data.tools else None,
            reasoning=recipe.chat.reasoning,
        )

    def read(self, training: StudentTraining) -> tuple[list[Example], list[Example]]:
        """Rows to train on and rows for validation, in the student's token ids; rows without an answer are left out.

        Raises:
            DataError: a file is broken, or a row cannot be trained on.
        """
        return (
            self._examples(self.train, self.train_limit, training),
            self._examples(self.validation, self.validation_limit, training) if self.validation else [],
        )

    def _examples(self, file: HashedPath, limit: int | None, training: StudentTraining) -> list[Example]:
        rows = read_rows(file.path, tools=self.tools.path if self.tools else None, limit=limit)
        answered = as_chosen([row for row in rows if row.completion is not None], self.reasoning)
        return training_examples(answered, training.rows.chat, training.inputs.chat.context)


@dataclass(frozen=True, kw_only=True)
class WorthInputs(StudentInputs):
    """What the other rungs depend on.

    rungs     rungs to train with the first seed
    student   rung that the student is
    control   whether the student has a control
    budget    what all rungs have in common
    seeds     number of training seeds
    answers   rows of the rung `labels`; None without it
    trained   what the student's own training did
    """

    rungs: tuple[Rung, ...]
    student_rung: str
    control: bool
    budget: Literal["steps", "seconds"]
    seeds: int
    answers: RightAnswers | None
    trained: HashedPath


def _inputs(recipe: Recipe, done: Done) -> WorthInputs | None:
    worth, rungs = recipe.worth, recipe.extra_rungs
    control = recipe.train.has_control and "text" in worth.rungs
    if worth.budget == "seconds" and control:
        rungs = tuple(sorted((*rungs, "text"), key=worth.rungs.index))
    if not rungs and worth.seeds == 1:
        return None
    return WorthInputs.of(
        recipe,
        done,
        rungs=rungs,
        student_rung=recipe.student_rung,
        control=control,
        budget=worth.budget,
        seeds=worth.seeds,
        answers=RightAnswers.of(recipe) if "labels" in rungs else None,
        trained=done.path("train", Trained.FILE),
    )


def run(inputs: WorthInputs, out: Path) -> None:
    """Train a model for each rung and seed that the train stage has not trained, in the folder of its name.

    Raises:
        DataError: a row cannot be trained on.
        StepError: stored targets are missing, the loss is not finite, or the processes cannot train this together.
    """
    from potstill.components.training.distillation import StudentTraining

    student = Trained.read(inputs.trained.path.parent).student
    models: dict[str, TrainSummary] = {}
    labelled = 0
    for number in range(1, inputs.seeds + 1):
        training = StudentTraining(replace(inputs, seed=inputs.seed + number - 1), out)
        right = inputs.answers.read(training) if inputs.answers else ([], [])
        labelled = len(right[0])
        for rung in _rungs(inputs, number):
            if rung == "labels" and not labelled:
                continue
            name = rung if number == 1 else f"{rung}-{number}"
            models[name] = _fit(training, rung, name, right, student, inputs)
    if is_first_process():
        TrainedRungs(models=models, labelled_rows=labelled).write(out)


def _rungs(inputs: WorthInputs, number: int) -> Iterator[str]:
    """Rungs to train with this seed: with all but the first, also those that the train stage has trained."""
    order = ("labels", "text", "distributions", "recipe")
    first = set(inputs.rungs)
    more = {inputs.student_rung} | ({"text"} if inputs.control else set())
    yield from (rung for rung in order if rung in (first if number == 1 else first | more))


def _fit(
    training: StudentTraining,
    rung: str,
    name: str,
    right: tuple[list[Example], list[Example]],
    student: TrainSummary,
    inputs: WorthInputs,
) -> TrainSummary:
    """Train one rung, for as many steps or as many seconds as the student was trained."""
    setup, start = training.setup(), training.start.build
    if rung == "labels":
        setup = replace(setup, examples=right[0], validation=right[1])
    objective = inputs.objective
    if rung in ("labels", "text") or objective.name == "sft":
        task = training.text_task()
    else:
        task = training.task(objective if rung == inputs.student_rung else objective.on_text)
    steps = student.steps
    if inputs.budget == "seconds" and rung != inputs.student_rung:
        trial = setup.fit(f"{name}.trial", start, task, steps=min(_TRIAL_STEPS, steps))
        if is_first_process():
            shutil.rmtree(setup.out / f"{name}.trial", ignore_errors=True)
        steps = max(1, round(student.seconds * trial.steps / trial.seconds))
    return setup.fit(name, start, task, steps=steps)


def _confirm(folder: Path, runs: Path) -> list[str]:
    found = TrainedRungs.read(folder)
    return [text for name, model in found.models.items() for text in model.findings(f"rung {name}", "train")]


STAGE = Stage("worth", ("finetune", "generate", "targets", "train"), _inputs, run, together=True, confirm=_confirm)
