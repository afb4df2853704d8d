"""What all trainings of one student share: its rows in token ids, the weights that it starts from, and what it learns.

`StudentInputs` is what a stage declares, and `StudentTraining` what it works with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import base_model, teacher_weights
from potstill.components.training.rows import GeneratedRows, UnansweredRows, training_examples
from potstill.core.errors import RecipeError
from potstill.core.hashing import HashedPath
from potstill.core.recipe import LocalTeacher, Objective, Recipe, Schedule, Student
from potstill.core.records import Row
from potstill.core.steps import Done

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.chat.format import ChatFormat, Example
    from potstill.components.chat.trimming import Vocabulary
    from potstill.components.training.alignments import Alignments
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.setup import TrainingSetup
    from potstill.components.training.students import StudentStart

__all__ = ["StudentInputs", "StudentTraining"]


@dataclass(frozen=True, kw_only=True)
class StudentInputs:
    """What every training of the student depends on.

    student          the recipe's section
    objective        the recipe's section
    schedule         settings of all trainings
    teacher          folder of the teacher's weights and tokenizer; None for an endpoint
    loaded_teacher   the recipe's section on the teacher; None if its weights are not loaded
    student_model    folder of `student.model`, for a student that starts from a checkpoint
    rows             the generated rows
    targets          the store of the targets step; None if the teacher computes its distributions online
    chat             template and context
    sampled_tokens   maximum length of an answer that the student samples; None if it samples none
    unanswered       rows that only the student answers; None: it answers some of the generated rows
    seed             seed of everything random
    """

    student: Student
    objective: Objective
    schedule: Schedule
    teacher: HashedPath | None
    loaded_teacher: LocalTeacher | None
    student_model: HashedPath | None
    rows: GeneratedRows
    targets: HashedPath | None
    chat: ChatSettings
    sampled_tokens: int | None
    unanswered: UnansweredRows | None
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, done: Done, **more: object) -> Self:
        """The inputs that follow from the recipe; the stage must declare that it reads finetune, generate, targets."""
        return cls(
            student=recipe.student,
            objective=recipe.train.objective,
            schedule=recipe.schedule,
            teacher=teacher_weights(recipe, done),
            loaded_teacher=recipe.local_teacher if recipe.trains_with_teacher else None,
            student_model=base_model(recipe),
            rows=GeneratedRows.of(done),
            targets=done.optional_path("targets", "store"),
            chat=ChatSettings.of(recipe.chat),
            sampled_tokens=recipe.generate.max_new_tokens if recipe.train.objective.on_policy else None,
            unanswered=UnansweredRows.of(recipe),
            seed=recipe.seed,
            **more,
        )


class StudentTraining:
    """The trainings of one student in a step's directory `out`: each has the same start, tokenizer and settings.

    rows    the generated rows in the student's token ids
    start   the weights before training
    """

    def __init__(self, inputs: StudentInputs, out: Path) -> None:
        """Tokenize the rows, and choose the layers to keep.

        Raises:
            DataError: a row cannot be trained on.
            RecipeError: the recipe does not fit the models.
        """
        self.inputs, self.out = inputs, out
        self.rows = _student_rows(inputs, out)
        teacher = self._teacher if inputs.student.init == "teacher_layers" else None
        self.start = _student_start(inputs, self.rows, teacher)

    @cached_property
    def _teacher(self) -> PreTrainedModel | None:
        """The teacher, loaded where the start or a task needs it; None if the recipe trains without its weights."""
        return _load_teacher(self.inputs)

    def task(self, objective: Objective) -> LanguageTask:
        """What the student learns from, with an objective that may be another than the recipe's."""
        return _distillation(self.inputs, objective, self.rows, self._teacher, self.start.kept_layers)

    def text_task(self) -> LanguageTask:
        """Learning from the text of rows alone."""
        from potstill.components.training.learner import LanguageTask

        return LanguageTask(kernel=self.inputs.schedule.kernel)

    def setup(self) -> TrainingSetup:
        """How a model is trained on the generated rows."""
        from potstill.components.training.setup import TrainingSetup

        return TrainingSetup(
            examples=self.rows.examples,
            validation=self.rows.validation,
            schedule=self.inputs.schedule,
            vocab_size=self.rows.chat.vocab_size,
            pad_id=self.rows.chat.eos_id,
            tokenizer_from=self.rows.tokenizer,
            out=self.out,
            seed=self.inputs.seed,
        )


@dataclass(frozen=True)
class StudentRows:
    """The generated rows in the student's token ids, and the student's tokenizer.

    rows         all rows, those for validation last
    examples     rows to train on
    validation   rows for validation
    untrimmed    rows to train on, in the token ids of the tokenizer before it is trimmed
    unanswered   prompts that only the student answers
    chat         the student's chat format
    tokenizer    folder of the student's tokenizer
    vocabulary   the tokens that a trimmed tokenizer has; None: it is not trimmed
    """

    rows: Sequence[Row]
    examples: Sequence[Example]
    validation: Sequence[Example]
    untrimmed: Sequence[Example]
    unanswered: Sequence[Example]
    chat: ChatFormat
    tokenizer: Path
    vocabulary: Vocabulary | None

    @property
    def all_examples(self) -> list[Example]:
        """Examples of all `rows`, in their order."""
        return [*self.examples, *self.validation]


def _student_rows(inputs: StudentInputs, out: Path) -> StudentRows:
    """Tokenize the rows for the student, and trim its tokenizer if the recipe says so."""
    from potstill.components.training.vocabulary import trim_vocabulary

    tokenizer = inputs.student_model or inputs.teacher
    assert tokenizer is not None  # a recipe with an endpoint has student.model
    chat, folder = inputs.chat.load(tokenizer.path), tokenizer.path
    splits = inputs.rows.read()
    untrimmed, validation = (training_examples(rows, chat, inputs.chat.context) for rows in splits)
    unanswered = inputs.unanswered.prompts(chat, inputs.chat.context) if inputs.unanswered else []
    examples, vocabulary = untrimmed, None
    if inputs.student.vocabulary == "workload":
        vocabulary = trim_vocabulary(folder, [*untrimmed, *validation, *unanswered], out)
        examples, validation, unanswered = (
            [vocabulary.example(e) for e in split] for split in (untrimmed, validation, unanswered)
        )
        folder = out / "tokenizer"
        chat = inputs.chat.load(folder)
    rows = [row for split in splits for row in split]
    return StudentRows(rows, examples, validation, untrimmed, unanswered, chat, folder, vocabulary)


def _load_teacher(inputs: StudentInputs) -> PreTrainedModel | None:
    from potstill.components.runtimes.load import load_causal_lm

    section = inputs.loaded_teacher
    if section is None:
        return None
    assert inputs.teacher is not None
    return load_causal_lm(inputs.teacher.path, section.dtype, section.offload)


def _student_start(inputs: StudentInputs, rows: StudentRows, teacher: PreTrainedModel | None) -> StudentStart:
    """Where the weights of student and control start."""
    from potstill.components.training.students import StudentStart, choose_layers

    kept_layers: Sequence[int] = ()
    if inputs.student.init == "teacher_layers":
        assert teacher is not None
        kept_layers = choose_layers(inputs.student, teacher, rows.untrimmed)
    return StudentStart(
        inputs.student,
        rows.chat,
        inputs.chat.context,
        inputs.seed,
        teacher=teacher,
        kept_layers=kept_layers,
        examples=rows.untrimmed,
        checkpoint=inputs.student_model.path if inputs.student_model else None,
        vocabulary=rows.vocabulary,
    )


def _distillation(
    inputs: StudentInputs,
    objective: Objective,
    rows: StudentRows,
    teacher: PreTrainedModel | None,
    kept_layers: Sequence[int],
) -> LanguageTask:
    """What the student learns from."""
    from potstill.components.targets import TargetsReader
    from potstill.components.training.hidden import HiddenTeacher
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.on_policy import StudentSamples

    if objective.name == "sft":
        return LanguageTask(kernel=inputs.schedule.kernel)
    hidden = None
    if objective.hidden is not None:
        assert teacher is not None
        hidden = HiddenTeacher(teacher, objective.hidden, (rows.untrimmed, rows.examples), kept_layers)
    samples = None
    if objective.on_policy is not None:
        assert inputs.sampled_tokens is not None
        samples = StudentSamples(
            objective.on_policy, rows.chat, inputs.chat.context, inputs.sampled_tokens, rows.unanswered
        )
    alignments = _alignments(inputs, objective, rows)
    task = LanguageTask(
        None if inputs.targets else teacher,
        objective=objective,
        stored=TargetsReader(inputs.targets.path) if inputs.targets else None,
        hidden=hidden,
        kernel=inputs.schedule.kernel,
        kept_ids=rows.vocabulary.kept if rows.vocabulary and not alignments else None,
        alignments=alignments,
        student_samples=samples,
    )
    if task.stored is not None:
        task.stored.require(task.keys(rows.all_examples))
    return task


def _alignments(inputs: StudentInputs, objective: Objective, rows: StudentRows) -> Alignments | None:
    """The rows in both sides' tokens, if teacher and student have different tokenizers or templates.

    Stored targets are found by the teacher's own tokens of a row, so for them a different template is enough.
    """
    from potstill.components.training.alignments import align_rows

    if inputs.student_model is None or inputs.teacher is None or objective.name == "sft":
        return None
    ours, theirs = inputs.chat.load(inputs.student_model.path), inputs.chat.load(inputs.teacher.path)
    same_template = inputs.targets is None or ours.template_hash == theirs.template_hash
    if ours.tokenizer_hash == theirs.tokenizer_hash and same_template:
        return None
    if objective.name != "forward_kl" or objective.hidden or objective.on_policy:
        parts = {".hidden": objective.hidden, ".on_policy": objective.on_policy}
        key = next((key for key, part in parts.items() if part), f": {objective.name}")
        raise RecipeError(
            f"train.objective{key} compares teacher and student token by token, "
            "but their tokenizers or templates differ. "
            "Set train.objective: forward_kl, without hidden and on_policy."
        )
    teacher_examples = training_examples(rows.rows, theirs, inputs.chat.context)
    return align_rows(rows.rows, rows.all_examples, teacher_examples, (rows.chat, theirs))
