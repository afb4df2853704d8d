"""Train the student by distillation, and its matched control by plain fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import base_model, teacher_weights
from potstill.components.training.rows import GeneratedRows, training_examples
from potstill.core.artifacts.training import Trained
from potstill.core.environment import is_first_process
from potstill.core.errors import RecipeError
from potstill.core.hashing import HashedPath
from potstill.core.recipe import LocalTeacher, Objective, Recipe, Schedule, Student
from potstill.core.records import Row
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.chat.format import ChatFormat, Example
    from potstill.components.chat.trimming import Vocabulary
    from potstill.components.training.alignments import Alignments
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.students import StudentStart

__all__ = ["STAGE", "TrainInputs"]


@dataclass(frozen=True)
class TrainInputs:
    """What the training of the student depends on.

    student          the recipe's section
    objective        the recipe's section
    control          whether a control is trained too
    schedule         settings of both trainings
    teacher          folder of the teacher's weights and tokenizer; None for an endpoint
    loaded_teacher   the recipe's section on the teacher; None if its weights are not loaded
    student_model    folder of `student.model`, for a student that starts from a checkpoint
    rows             the generated rows
    targets          the store of the targets step; None if the teacher computes its distributions online
    chat             template and context
    sampled_tokens   maximum length of an answer that the student samples; None if it samples none
    seed             seed of everything random
    """

    student: Student
    objective: Objective
    control: bool
    schedule: Schedule
    teacher: HashedPath | None
    loaded_teacher: LocalTeacher | None
    student_model: HashedPath | None
    rows: GeneratedRows
    targets: HashedPath | None
    chat: ChatSettings
    sampled_tokens: int | None
    seed: int


def _inputs(recipe: Recipe, done: Done) -> TrainInputs:
    return TrainInputs(
        student=recipe.student,
        objective=recipe.train.objective,
        control=recipe.train.has_control,
        schedule=recipe.schedule,
        teacher=teacher_weights(recipe, done),
        loaded_teacher=recipe.local_teacher if recipe.trains_with_teacher else None,
        student_model=base_model(recipe),
        rows=GeneratedRows.of(done),
        targets=done.optional_path("targets", "store"),
        chat=ChatSettings.of(recipe.chat),
        sampled_tokens=recipe.generate.max_new_tokens if recipe.train.objective.on_policy else None,
        seed=recipe.seed,
    )


def run(inputs: TrainInputs, out: Path) -> None:
    """Train `out/student` and, if the recipe wants one, `out/control`, from the same start on the same batches.

    `out/start` has the weights before training, unless they are random.

    Raises:
        DataError: a row cannot be trained on.
        RecipeError: the recipe does not fit the models.
        StepError: stored targets are missing, the loss is not finite, or the processes cannot train this together.
    """
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.setup import TrainingSetup

    rows = _student_rows(inputs, out)
    teacher = _load_teacher(inputs)
    start = _student_start(inputs, rows, teacher)
    task = _distillation(inputs, rows, teacher, start.kept_layers)
    setup = TrainingSetup(
        examples=rows.examples,
        validation=rows.validation,
        schedule=inputs.schedule,
        vocab_size=rows.chat.vocab_size,
        pad_id=rows.chat.eos_id,
        tokenizer_from=rows.tokenizer,
        out=out,
        seed=inputs.seed,
    )
    if inputs.student.init != "scratch":
        setup.save_start(start.build)
    student = setup.fit("student", start.build, task)
    control = None
    if inputs.control:
        control = setup.fit("control", start.build, LanguageTask(kernel=inputs.schedule.kernel))
    if is_first_process():
        Trained(student=student, control=control, vocabulary=rows.chat.vocab_size).write(out)


@dataclass(frozen=True)
class _StudentRows:
    """The generated rows in the student's token ids, and the student's tokenizer.

    rows         all rows, those for validation last
    examples     rows to train on
    validation   rows for validation
    untrimmed    rows to train on, in the token ids of the tokenizer before it is trimmed
    chat         the student's chat format
    tokenizer    folder of the student's tokenizer
    vocabulary   the tokens that a trimmed tokenizer has; None: it is not trimmed
    """

    rows: Sequence[Row]
    examples: Sequence[Example]
    validation: Sequence[Example]
    untrimmed: Sequence[Example]
    chat: ChatFormat
    tokenizer: Path
    vocabulary: Vocabulary | None

    @property
    def all_examples(self) -> list[Example]:
        """Examples of all `rows`, in their order."""
        return [*self.examples, *self.validation]


def _student_rows(inputs: TrainInputs, out: Path) -> _StudentRows:
    """Tokenize the rows for the student, and trim its tokenizer if the recipe says so."""
    from potstill.components.training.vocabulary import trim_vocabulary

    tokenizer = inputs.student_model or inputs.teacher
    assert tokenizer is not None  # a recipe with an endpoint has student.model
    chat, folder = inputs.chat.load(tokenizer.path), tokenizer.path
    splits = inputs.rows.read()
    untrimmed, validation = (training_examples(rows, chat, inputs.chat.context) for rows in splits)
    examples, vocabulary = untrimmed, None
    if inputs.student.vocabulary == "workload":
        vocabulary = trim_vocabulary(folder, [*untrimmed, *validation], out)
        examples, validation = ([vocabulary.example(e) for e in split] for split in (untrimmed, validation))
        folder = out / "tokenizer"
        chat = inputs.chat.load(folder)
    rows = [row for split in splits for row in split]
    return _StudentRows(rows, examples, validation, untrimmed, chat, folder, vocabulary)


def _load_teacher(inputs: TrainInputs) -> PreTrainedModel | None:
    from potstill.components.runtimes.load import load_causal_lm

    section = inputs.loaded_teacher
    if section is None:
        return None
    assert inputs.teacher is not None
    return load_causal_lm(inputs.teacher.path, section.dtype, section.offload)


def _student_start(inputs: TrainInputs, rows: _StudentRows, teacher: PreTrainedModel | None) -> StudentStart:
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
    inputs: TrainInputs, rows: _StudentRows, teacher: PreTrainedModel | None, kept_layers: Sequence[int]
) -> LanguageTask:
    """What the student learns from."""
    from potstill.components.targets import TargetsReader
    from potstill.components.training.hidden import HiddenTeacher
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.on_policy import StudentSamples

    objective = inputs.objective
    if objective.name == "sft":
        return LanguageTask(kernel=inputs.schedule.kernel)
    hidden = None
    if objective.hidden is not None:
        assert teacher is not None
        hidden = HiddenTeacher(teacher, objective.hidden, (rows.untrimmed, rows.examples), kept_layers)
    samples = None
    if objective.on_policy is not None:
        assert inputs.sampled_tokens is not None
        samples = StudentSamples(objective.on_policy, rows.chat, inputs.chat.context, inputs.sampled_tokens)
    alignments = _alignments(inputs, rows)
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


def _alignments(inputs: TrainInputs, rows: _StudentRows) -> Alignments | None:
    """The rows in both sides' tokens, if teacher and student have different tokenizers or templates.

    Stored targets are found by the teacher's own tokens of a row, so for them a different template is enough.
    """
    from potstill.components.training.alignments import align_rows

    objective = inputs.objective
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


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Trained.read(folder).findings()


STAGE = Stage("train", ("finetune", "generate", "targets"), _inputs, run, version=7, together=True, confirm=_confirm)
