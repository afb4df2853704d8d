"""Train the student by distillation, its matched control by plain fine-tuning, and, where asked, the teacher first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.training.training import Training
from potstill.core.environment import is_first_process
from potstill.core.errors import DataError, RecipeError
from potstill.core.files import write_json
from potstill.core.hashing import fingerprint, hash_model
from potstill.core.recipe import ClassifierRecipe, Recipe
from potstill.core.records import Row, read_generated, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from potstill.components.chat.format import ChatFormat, Example
    from potstill.components.chat.trimming import Vocabulary
    from potstill.components.targets import TargetsMeta
    from potstill.components.training.learner import Objective
    from potstill.components.training.readings import Readings

__all__ = [
    "VERSION",
    "distil_classifier",
    "finetune",
    "finetune_classifier",
    "run",
    "store_served_targets",
    "store_targets",
]

VERSION = 5

_SPLITS = ("train", "validation")


def _examples(rows: Sequence[Row], chat: ChatFormat, context: int) -> list[Example]:
    """Token ids of every row.

    Raises:
        DataError: a row cannot be trained on: no supervised token, no end token, or longer than the context.
    """
    examples = []
    for row in rows:
        where = row.where or f"row {row.row_id}"
        try:
            example = chat.example(row)
        except ValueError as error:
            raise DataError(f"{where}: {error}.") from None
        unfinished = row.provenance.get("finish_reason") == "length"
        if example.n_supervised == 0 or not (example.eos_supervised or unfinished):
            what = (
                "no supervised token"
                if example.n_supervised == 0
                else "no end-of-turn token in its answer, so a student would never learn to stop"
            )
            raise DataError(f"{where}: the rendered row has {what}. Look at the chat template.")
        if len(example.ids) > context:
            raise DataError(
                f"{where}: {len(example.ids)} tokens, more than chat.context ({context}). Raise it, or drop the row."
            )
        examples.append(example)
    return examples


def finetune(recipe: Recipe, base: Path, out: Path) -> None:
    """Train the teacher on rows with right answers; the result is `out/model`.

    Args:
        recipe: has `teacher.finetune`.
        base: folder of `teacher.model`; with `finetune.shape` only its tokenizer is used.
        out: step directory.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.learner import Objective
    from potstill.components.training.students import from_scratch

    settings = recipe.teacher.finetune
    assert settings is not None
    chat = load_chat(base, recipe.chat.template)
    rows = read_rows(settings.rows, tools=recipe.data.tools, need_completion=True)
    validation: list[Row] = []
    if recipe.data.validation:
        validation = [r for r in read_rows(recipe.data.validation, tools=recipe.data.tools) if r.completion is not None]

    def start() -> PreTrainedModel:
        if settings.shape is None:
            return load_causal_lm(base)
        return from_scratch(settings.shape, chat, recipe.chat.context, recipe.seed)

    training = Training(
        _examples(rows, chat, recipe.chat.context),
        _examples(validation, chat, recipe.chat.context),
        recipe.finetune_schedule,
        chat.vocab_size,
        chat.eos_id,
        base,
        out,
        recipe.seed,
        settings.shallow_layers,
    )
    summary = training.fit("model", start, Objective(), recipe.local_teacher.saved_dtype)
    if is_first_process():
        write_json(out / "summary.json", {"model": summary})


def store_targets(recipe: Recipe, teacher_folder: Path, generated: Path, out: Path) -> None:
    """Store the teacher's distributions over generated rows as `out/store`; what a killed run stored is kept.

    Args:
        recipe: has stored targets.
        teacher_folder: the teacher's weights.
        generated: directory of the generate step.
        out: step directory.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.runtimes.load import load_causal_lm, on_device
    from potstill.components.targets import TargetsWriter, store_stats
    from potstill.stages.targets.scoring import write_targets

    chat = load_chat(teacher_folder, recipe.chat.template)
    examples = [e for split in _SPLITS for e in _examples(read_generated(generated, split), chat, recipe.chat.context)]
    teacher = on_device(load_causal_lm(teacher_folder, recipe.local_teacher.dtype, recipe.teacher.offload))
    with TargetsWriter(out / "store", _targets_meta(recipe, teacher_folder, chat)) as writer:
        write_targets(teacher, examples, writer, recipe.train.batch_tokens)
    write_json(out / "summary.json", store_stats(out / "store"))


def store_served_targets(recipe: Recipe, base: Path, generated: Path, out: Path) -> None:
    """Store an endpoint's distributions over its answers as `out/store`, from what it said of them.

    Args:
        recipe: has an api teacher, and targets of kind top_k.
        base: folder of `student.model`, whose tokens they are.
        generated: directory of the generate step.
        out: step directory.

    Raises:
        StepError: more than half of the answers are other tokens to the student, or have no distributions.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.targets import TargetsWriter, store_stats
    from potstill.stages.targets.served import read_tokens_of, write_served_targets

    chat = load_chat(base, recipe.chat.template)
    rows: list[Row] = []
    said: list[str | None] = []
    for split in _SPLITS:
        answered, tokens = read_generated(generated, split), read_tokens_of(generated, split)
        rows += answered
        said += [tokens.get(row.row_id) for row in answered]
    examples, where = _examples(rows, chat, recipe.chat.context), str(recipe.teacher.base_url)
    with TargetsWriter(out / "store", _targets_meta(recipe, None, chat)) as writer:
        counts = write_served_targets(rows, examples, said, chat, writer, where)
    write_json(out / "summary.json", store_stats(out / "store") | {"rows": counts})


def _targets_meta(recipe: Recipe, teacher_folder: Path | None, chat: ChatFormat) -> TargetsMeta:
    """What the recipe asks of a store of this teacher's distributions; an endpoint is known by address and model."""
    from potstill.components.targets import TargetsMeta

    wanted = recipe.stored_targets
    assert wanted is not None
    served = {"endpoint": recipe.teacher.base_url, "model": recipe.teacher.model}
    return TargetsMeta(
        kind=wanted.kind,
        draws=wanted.draws if wanted.kind == "counts" else None,
        seed=recipe.seed if wanted.kind == "counts" else None,
        k=min(wanted.k, chat.vocab_size) if wanted.kind == "top_k" else None,
        vocab_size=chat.vocab_size,
        teacher_hash=hash_model(teacher_folder, (".safetensors",)) if teacher_folder else fingerprint(served),
        tokenizer_hash=chat.tokenizer_hash,
        template_hash=chat.template_hash,
        temperature=recipe.train.objective.temperature,
        dtype=recipe.local_teacher.dtype if teacher_folder else "as served",
    )


def _objective(
    recipe: Recipe,
    teacher: PreTrainedModel | None,
    teacher_folder: Path | None,
    targets: Path | None,
    vocabulary: Vocabulary | None,
    rows: tuple[Sequence[Example], Sequence[Example]],
    kept: Sequence[int],
    readings: Readings | None,
    chat: ChatFormat,
) -> Objective:
    """What the recipe's student learns from; `rows` are in the teacher's ids and in the student's, `chat` its own."""
    from potstill.components.chat.format import load_chat
    from potstill.components.targets import TargetsReader
    from potstill.components.training.hidden import HiddenTeacher
    from potstill.components.training.learner import Objective
    from potstill.components.training.on_policy import OwnText

    settings, kernel = recipe.train.objective, recipe.trainer.kernel
    if settings.name == "sft":
        return Objective(kernel=kernel)
    stored = None
    if targets is not None:
        reader = load_chat(teacher_folder, recipe.chat.template) if teacher_folder else chat
        wanted = _targets_meta(recipe, teacher_folder, reader)
        stored = TargetsReader(targets / "store", wanted)
    hidden = None
    if settings.hidden is not None:
        assert teacher is not None
        hidden = HiddenTeacher(teacher, settings.hidden, rows, kept)
    divergence, own_divergence = settings.losses
    return Objective(
        None if stored else teacher,
        stored=stored,
        hidden=hidden,
        own_text=OwnText(settings.on_policy, chat, recipe.chat.context) if settings.on_policy else None,
        own_divergence=own_divergence,
        divergence=divergence,
        parameters=settings.parameters,
        temperature=settings.temperature,
        hard_label_weight=settings.hard_label_weight,
        kernel=kernel,
        kept=vocabulary.kept if vocabulary and not readings else None,
        readings=readings,
    )


def _readings(
    recipe: Recipe,
    teacher_folder: Path | None,
    base: Path | None,
    rows: Sequence[Row],
    examples: Sequence[Example],
    chat: ChatFormat,
) -> Readings | None:
    """Rows as both sides read them, where a student is distilled from a teacher with another tokenizer.

    Stored targets belong to the teacher's own tokens of a row, so for them another template is enough.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.training.readings import read_twice

    settings, template = recipe.train.objective, recipe.chat.template
    if base is None or teacher_folder is None or settings.name == "sft":
        return None
    ours, theirs = load_chat(base, template), load_chat(teacher_folder, template)
    one_template = recipe.stored_targets is None or ours.template_hash == theirs.template_hash
    if ours.tokenizer_hash == theirs.tokenizer_hash and one_template:
        return None
    if settings.name != "forward_kl" or settings.hidden or settings.on_policy:
        parts = {".hidden": settings.hidden, ".on_policy": settings.on_policy}
        what = next((key for key, part in parts.items() if part), f": {settings.name}")
        raise RecipeError(
            f"train.objective{what} compares teacher and student token by token, "
            "but their tokenizers or templates differ. "
            "Set train.objective: forward_kl, without hidden and on_policy."
        )
    return read_twice(rows, examples, _examples(rows, theirs, recipe.chat.context), (chat, theirs))


def run(
    recipe: Recipe, teacher_folder: Path | None, base: Path | None, generated: Path, targets: Path | None, out: Path
) -> None:
    """Train `out/student` and, with `control: sft`, `out/control`: same start, rows, batches, steps and seed.

    Args:
        recipe: the recipe.
        teacher_folder: the teacher's weights; None for an endpoint.
        base: folder of `student.model`, when the student starts from a checkpoint.
        generated: directory of the generate step.
        targets: directory of the targets step; None where the teacher runs beside the student.
        out: step directory.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.learner import Objective
    from potstill.components.training.students import build_student, kept_layers

    context = recipe.chat.context
    tokenizer_from = base or teacher_folder
    assert tokenizer_from is not None
    chat = load_chat(tokenizer_from, recipe.chat.template)
    answered = [read_generated(generated, split) for split in _SPLITS]
    examples, validation = (_examples(rows, chat, context) for rows in answered)
    loads = teacher_folder if recipe.trains_with_teacher else None
    teacher = load_causal_lm(loads, recipe.local_teacher.dtype, recipe.teacher.offload) if loads else None
    kept = kept_layers(recipe.student, teacher, examples) if teacher and recipe.student.init == "teacher_layers" else []
    measured, vocabulary = examples, None
    if recipe.student.vocabulary == "workload":
        vocabulary = _trim(tokenizer_from, [*examples, *validation], out)
        examples, validation = ([vocabulary.example(e) for e in part] for part in (examples, validation))
        tokenizer_from = out / "tokenizer"
        chat = load_chat(tokenizer_from, recipe.chat.template)
    training = Training(
        examples, validation, recipe.schedule, chat.vocab_size, chat.eos_id, tokenizer_from, out, recipe.seed
    )

    def start() -> PreTrainedModel:
        return build_student(recipe.student, teacher, base, chat, context, recipe.seed, measured, kept, vocabulary)

    both, rows = [*examples, *validation], (measured, examples)
    readings = _readings(recipe, teacher_folder, base, [row for part in answered for row in part], both, chat)
    distil = _objective(recipe, teacher, teacher_folder, targets, vocabulary, rows, kept, readings, chat)
    if distil.stored is not None:
        distil.stored.require(distil.keys(both))
    student = training.fit("student", start, distil)
    control = None
    if recipe.train.has_control:
        control = training.fit("control", start, Objective(kernel=recipe.trainer.kernel))
    if not is_first_process():
        return
    summary = {
        "student": student,
        "control": control,
        "params_student": student["params"],
        "vocabulary": chat.vocab_size,
    }
    write_json(out / "summary.json", summary)


def _trim(tokenizer_from: Path, examples: Sequence[Example], out: Path) -> Vocabulary:
    """Trim the tokenizer to rows, as `out/tokenizer`; `out/kept.json` has the old id of each new one."""
    from potstill.components.chat.trimming import trim_folder
    from potstill.components.training.ranks import wait_for_all

    used = {index for example in examples for index in example.ids}
    with tempfile.TemporaryDirectory() as unused:
        first = is_first_process()
        vocabulary = trim_folder(tokenizer_from, used, out / "tokenizer" if first else Path(unused))
    if first:
        write_json(out / "kept.json", vocabulary.kept)
    wait_for_all()
    return vocabulary


def finetune_classifier(recipe: ClassifierRecipe, base: Path, out: Path) -> None:
    """Train the teacher with a new head on the labelled rows; the result is `out/model`.

    Args:
        recipe: has `teacher.finetune`.
        base: folder of `teacher.model`.
        out: step directory.
    """
    from potstill.components.training.classifier import finetune

    finetune(recipe, base, out)


def distil_classifier(recipe: ClassifierRecipe, teacher_folder: Path, out: Path) -> None:
    """Train `out/student` and, with `control: sft`, `out/control`: same start, rows, batches, steps and seed.

    Args:
        recipe: the recipe.
        teacher_folder: the teacher, with its classification head.
        out: step directory.
    """
    from potstill.components.training.classifier import distil

    distil(recipe, teacher_folder, out)
