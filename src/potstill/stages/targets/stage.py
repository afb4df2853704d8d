"""Store the teacher's distributions over the generated rows, once, for every student to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import base_model, teacher_weights
from potstill.components.targets.meta import FORMAT, TargetsMeta
from potstill.components.training.rows import GeneratedRows, training_examples
from potstill.core.artifacts.generated import GeneratedSplit, logprobs_file, read_logprobs
from potstill.core.artifacts.training import ServedRowCounts, StoredTargets
from potstill.core.hashing import HashedPath, fingerprint
from potstill.core.recipe import ApiTeacher, CountTargets, LocalTeacher, Recipe, TopKTargets
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from potstill.components.chat.format import ChatFormat

__all__ = ["STAGE", "Endpoint", "LocalScoring", "TargetsInputs"]

_SPLITS: tuple[GeneratedSplit, ...] = ("train", "validation")


@dataclass(frozen=True)
class LocalScoring:
    """A local teacher, which is run over the rows.

    section        the recipe's section
    weights        folder of its weights
    batch_tokens   maximum size of a batch, in tokens
    """

    section: LocalTeacher
    weights: HashedPath
    batch_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, which gave log-probabilities with its answers.

    section         the recipe's section
    student_model   folder of `student.model`, whose tokens the targets are stored in
    train_logprobs, validation_logprobs   files of the generate step
    """

    section: ApiTeacher
    student_model: HashedPath
    train_logprobs: HashedPath | None
    validation_logprobs: HashedPath | None


@dataclass(frozen=True)
class TargetsInputs:
    """What the stored targets depend on.

    stored         the recipe's section on what is stored per token
    temperature    softmax temperature of the teacher
    seed           seed of sampled counts; None for top_k
    teacher        who gives the distributions
    rows           the generated rows
    chat           template and context
    store_format   format of the store's files
    """

    stored: CountTargets | TopKTargets
    temperature: float
    seed: int | None
    teacher: LocalScoring | Endpoint
    rows: GeneratedRows
    chat: ChatSettings
    store_format: int = FORMAT


def _inputs(recipe: Recipe, done: Done) -> TargetsInputs | None:
    stored = recipe.stored_targets
    if stored is None:
        return None
    return TargetsInputs(
        stored=stored,
        temperature=recipe.train.objective.temperature,
        seed=recipe.seed if stored.kind == "counts" else None,
        teacher=_teacher(recipe, done),
        rows=GeneratedRows.of(done),
        chat=ChatSettings.of(recipe.chat),
    )


def _teacher(recipe: Recipe, done: Done) -> LocalScoring | Endpoint:
    if recipe.teacher.kind == "local":
        weights = teacher_weights(recipe, done)
        assert weights is not None
        return LocalScoring(recipe.teacher, weights, recipe.train.batch_tokens)
    student_model = base_model(recipe)
    assert student_model is not None  # a recipe with an endpoint has student.model
    train, validation = (done.optional_path("generate", logprobs_file(split)) for split in _SPLITS)
    assert recipe.teacher.kind == "api"  # several teachers give no distributions
    return Endpoint(recipe.teacher, student_model, train, validation)


def run(inputs: TargetsInputs, out: Path) -> None:
    """Store the distributions as `out/store`; a killed run continues with what it has stored.

    Raises:
        DataError: a row cannot be trained on.
        StepError: the student splits more than half of an endpoint's answers into other tokens, or the endpoint gave
            no log-probabilities for more than half.
    """
    from potstill.components.targets import store_stats

    if isinstance(inputs.teacher, LocalScoring):
        rows = None
        _score(inputs, inputs.teacher, out / "store")
    else:
        rows = _take_logprobs(inputs, inputs.teacher, out / "store")
    StoredTargets(store=store_stats(out / "store"), rows=rows).write(out)


def _score(inputs: TargetsInputs, teacher: LocalScoring, store: Path) -> None:
    """Run the teacher over all rows."""
    from potstill.components.runtimes.load import load_causal_lm, on_device
    from potstill.components.targets import TargetsWriter
    from potstill.stages.targets.scoring import write_targets

    chat = inputs.chat.load(teacher.weights.path)
    examples = [e for rows in inputs.rows.read() for e in training_examples(rows, chat, inputs.chat.context)]
    model = on_device(load_causal_lm(teacher.weights.path, teacher.section.dtype, teacher.section.offload))
    meta = _meta(inputs, chat, teacher.weights.sha256, teacher.section.dtype)
    with TargetsWriter(store, meta) as writer:
        write_targets(model, examples, writer, teacher.batch_tokens)


def _take_logprobs(inputs: TargetsInputs, teacher: Endpoint, store: Path) -> ServedRowCounts:
    """Take the distributions from the log-probabilities that came with the endpoint's answers."""
    from potstill.components.targets import TargetsWriter
    from potstill.stages.targets.served import write_served_targets

    chat = inputs.chat.load(teacher.student_model.path)
    rows, logprobs = [], []
    files = teacher.train_logprobs, teacher.validation_logprobs
    for split, file in zip(inputs.rows.read(), files, strict=True):
        by_row = read_logprobs(file.path) if file else {}
        rows += split
        logprobs += [by_row.get(row.row_id) for row in split]
    examples, url = training_examples(rows, chat, inputs.chat.context), teacher.section.base_url
    teacher_hash = fingerprint({"endpoint": url, "model": teacher.section.model})
    with TargetsWriter(store, _meta(inputs, chat, teacher_hash, "as served")) as writer:
        return write_served_targets(rows, examples, logprobs, chat, writer, url)


def _meta(inputs: TargetsInputs, chat: ChatFormat, teacher_hash: str, dtype: str) -> TargetsMeta:
    """The identity of the store; a store of anything else in the same folder is rejected."""
    stored = inputs.stored
    return TargetsMeta(
        kind=stored.kind,
        draws=stored.k if stored.kind == "counts" else None,
        seed=inputs.seed,
        k=min(stored.k, chat.vocab_size) if stored.kind == "top_k" else None,
        vocab_size=chat.vocab_size,
        teacher_hash=teacher_hash,
        tokenizer_hash=chat.tokenizer_hash,
        template_hash=chat.template_hash,
        temperature=inputs.temperature,
        dtype=dtype,
    )


STAGE = Stage("targets", ("finetune", "generate"), _inputs, run, version=6, paid=("store/*",))
