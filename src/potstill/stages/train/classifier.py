"""Train the student of a classifier by distillation, and its matched control on the right classes only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.models.handover import classifier_teacher
from potstill.components.training.rows import LabelledRows
from potstill.core.artifacts.training import Trained
from potstill.core.environment import is_first_process
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierRecipe, ClassifierStudent, ClassifierTrain, Schedule
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.chat.trimming import Vocabulary

__all__ = ["STAGE", "ClassifierTrainInputs"]


@dataclass(frozen=True)
class ClassifierTrainInputs:
    """What the training of a classifier depends on.

    student    the recipe's section
    settings   the recipe's section on the loss, and whether there is a control
    schedule   settings of the training
    teacher    the teacher, with its classification head
    rows       rows to train on, and for the validation curve
    seed       seed of everything random
    """

    student: ClassifierStudent
    settings: ClassifierTrain
    schedule: Schedule
    teacher: HashedPath
    rows: LabelledRows
    seed: int


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierTrainInputs:
    return ClassifierTrainInputs(
        student=recipe.student,
        settings=recipe.train,
        schedule=recipe.schedule,
        teacher=classifier_teacher(recipe, done),
        rows=LabelledRows.of(recipe.data),
        seed=recipe.seed,
    )


def run(inputs: ClassifierTrainInputs, out: Path) -> None:
    """Train `out/student` and, if the recipe wants one, `out/control`, from the same start on the same batches."""
    from potstill.components.runtimes.classifier import class_names, load_classifier
    from potstill.components.training.classifier import ClassifierTask
    from potstill.components.training.classifier_setup import classifier_setup
    from potstill.components.training.students import from_teacher_layers
    from potstill.components.training.vocabulary import cut_embedding

    settings, teacher = inputs.settings, load_classifier(inputs.teacher.path)
    vocabulary = _vocabulary(inputs, out / "tokenizer")
    setup = classifier_setup(inputs.rows, inputs.schedule, class_names(teacher), out, inputs.seed)

    def start() -> PreTrainedModel:
        student = from_teacher_layers(teacher, inputs.student.layers)
        if vocabulary is not None:
            cut_embedding(student, vocabulary)
        return student

    task = ClassifierTask(
        teacher,
        temperature=settings.temperature,
        hard_label_weight=settings.hard_label_weight,
        cosine_weight=settings.cosine_weight,
        kept_ids=vocabulary.kept if vocabulary else None,
    )
    setup.save_start(start)
    student = setup.fit("student", start, task)
    control = setup.fit("control", start, ClassifierTask()) if settings.control == "sft" else None
    if is_first_process():
        Trained(student=student, control=control, vocabulary=setup.vocab_size).write(out)


def _vocabulary(inputs: ClassifierTrainInputs, out: Path) -> Vocabulary | None:
    """Write the student's tokenizer to `out`, trimmed if the recipe says so; the kept tokens, or None for all."""
    from potstill.components.chat.trimming import trim_folder
    from potstill.components.training.classifier_setup import write_tokenizer

    teacher, context = inputs.teacher.path, inputs.rows.context
    if not inputs.student.vocabulary:
        write_tokenizer(teacher, context, out)
        return None
    with tempfile.TemporaryDirectory() as trimmed:
        vocabulary = trim_folder(teacher, _used_ids(inputs, inputs.student.vocabulary), Path(trimmed))
        write_tokenizer(Path(trimmed), context, out)
    return vocabulary


def _used_ids(inputs: ClassifierTrainInputs, size: int) -> Iterable[int]:
    """Token ids of the training rows, and the lowest other ids up to `size`; ids that must be kept are not counted."""
    from potstill.components.runtimes.classifier import load_text_tokenizer

    tokenizer = load_text_tokenizer(inputs.teacher.path, inputs.rows.context)
    rows = tokenizer.encode_batch([row.text for row in inputs.rows.read_train()])
    used = {index for row in rows for index in row.ids}
    # BERT's vocabulary begins with about a thousand unused places
    words = (i for text, i in tokenizer.get_vocab().items() if i not in used and not text.startswith("[unused"))
    return used.union(sorted(words)[: max(0, size - len(used))])


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Trained.read(folder).findings()


STAGE = Stage("train", ("finetune",), _inputs, run, version=7, together=True, confirm=_confirm)
