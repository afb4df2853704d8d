"""Train the teacher on rows with right answers, before it teaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.components.chat.format import ChatSettings
from potstill.components.chat.reasoning import as_chosen
from potstill.components.models.folder import resolve_model
from potstill.components.models.handover import optional_file
from potstill.core.artifacts.training import Finetuned
from potstill.core.environment import is_first_process
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Recipe, Schedule, Shape
from potstill.core.records import read_rows
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["STAGE", "FinetuneInputs"]


@dataclass(frozen=True)
class FinetuneInputs:
    """What the fine-tuning of the teacher depends on.

    base            folder of `teacher.model`; with `shape`, only its tokenizer is used
    shape           shape of a teacher that starts from random weights
    shallow_layers  number of layers that are trained alone in every other step
    schedule        settings of the training
    saved_dtype     number format of the saved weights
    rows            rows to train on, with an answer each
    validation      rows for the validation curve, up to `validation_limit`; those without an answer are not used
    tools           tools of rows that name none
    chat            template and context
    seed            seed of everything random
    """

    base: HashedPath
    shape: Shape | None
    shallow_layers: int | None
    schedule: Schedule
    saved_dtype: Literal["float32", "bfloat16"]
    rows: HashedPath
    validation: HashedPath | None
    validation_limit: int | None
    tools: HashedPath | None
    chat: ChatSettings
    seed: int


def _inputs(recipe: Recipe, done: Done) -> FinetuneInputs | None:
    settings = recipe.teacher.finetune
    if settings is None:
        return None
    base = resolve_model(recipe.teacher.model, weights=settings.shape is None)
    return FinetuneInputs(
        base=HashedPath.of_model(base),
        shape=settings.shape,
        shallow_layers=settings.shallow_layers,
        schedule=recipe.finetune_schedule,
        saved_dtype=recipe.local_teacher.saved_dtype,
        rows=HashedPath.of_file(settings.rows),
        validation=optional_file(recipe.data.validation),
        validation_limit=recipe.data.limit.get("validation"),
        tools=optional_file(recipe.data.tools),
        chat=ChatSettings.of(recipe.chat),
        seed=recipe.seed,
    )


def run(inputs: FinetuneInputs, out: Path) -> None:
    """Train the teacher; its weights are left in `out/model`.

    Raises:
        DataError: a row cannot be trained on.
        StepError: the loss is not finite, or the processes cannot train this together.
    """
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.learner import LanguageTask
    from potstill.components.training.rows import training_examples
    from potstill.components.training.setup import TrainingSetup
    from potstill.components.training.students import from_scratch

    base, context = inputs.base.path, inputs.chat.context
    chat = inputs.chat.load(base)
    tools = inputs.tools.path if inputs.tools else None
    rows = as_chosen(read_rows(inputs.rows.path, tools=tools, need_completion=True), inputs.chat.reasoning)
    file, limit = inputs.validation, inputs.validation_limit
    validation = read_rows(file.path, tools=tools, limit=limit) if file else []
    validation = as_chosen(validation, inputs.chat.reasoning)

    def start() -> PreTrainedModel:
        if inputs.shape is None:
            return load_causal_lm(base)
        return from_scratch(inputs.shape, chat, context, inputs.seed)

    setup = TrainingSetup(
        examples=training_examples(rows, chat, context),
        validation=training_examples([row for row in validation if row.completion is not None], chat, context),
        schedule=inputs.schedule,
        vocab_size=chat.vocab_size,
        pad_id=chat.eos_id,
        tokenizer_from=base,
        out=out,
        seed=inputs.seed,
        shallow_layers=inputs.shallow_layers,
    )
    summary = setup.fit("model", start, LanguageTask(), inputs.saved_dtype)
    if is_first_process():
        Finetuned(model=summary).write(out)


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Finetuned.read(folder).findings()


STAGE = Stage("finetune", (), _inputs, run, version=8, together=True, confirm=_confirm)
