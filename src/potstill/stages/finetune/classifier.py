"""Train the teacher of a classifier, with a new head, on the labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.models.folder import resolve_model
from potstill.components.training.rows import LabelledRows
from potstill.core.artifacts.training import Finetuned
from potstill.core.environment import is_first_process
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierRecipe, Schedule
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["STAGE", "ClassifierFinetuneInputs"]


@dataclass(frozen=True)
class ClassifierFinetuneInputs:
    """What the fine-tuning of a classifier's teacher depends on.

    base       folder of `teacher.model`
    rows       rows to train on, and for the validation curve
    schedule   settings of the training
    seed       seed of everything random
    """

    base: HashedPath
    rows: LabelledRows
    schedule: Schedule
    seed: int


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierFinetuneInputs | None:
    if recipe.teacher.finetune is None:
        return None
    base = HashedPath.of_model(resolve_model(recipe.teacher.model))
    return ClassifierFinetuneInputs(base, LabelledRows.of(recipe.data), recipe.finetune_schedule, recipe.seed)


def run(inputs: ClassifierFinetuneInputs, out: Path) -> None:
    """Train the teacher; its weights are left in `out/model`."""
    import torch

    from potstill.components.runtimes.classifier import load_classifier
    from potstill.components.training.classifier import ClassifierTask
    from potstill.components.training.classifier_setup import classifier_setup, write_tokenizer

    labels = sorted({row.label for row in inputs.rows.read_train()})
    write_tokenizer(inputs.base.path, inputs.rows.context, out / "tokenizer")
    setup = classifier_setup(inputs.rows, inputs.schedule, labels, out, inputs.seed)

    def start() -> PreTrainedModel:
        torch.manual_seed(inputs.seed)  # for the new head
        return load_classifier(inputs.base.path, labels)

    summary = setup.fit("model", start, ClassifierTask())
    if is_first_process():
        Finetuned(model=summary).write(out)


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Finetuned.read(folder).findings()


STAGE = Stage("finetune", (), _inputs, run, version=7, together=True, confirm=_confirm)
