"""Encoders with a classification head: the teacher fine-tuned, a student of its layers distilled, and its control.

In the manner of DistilBERT (Sanh et al. 2019): evenly spaced layers of the teacher, and three losses, on its softened
classes, on the right class, and on the angle between last hidden states. The loop is the one of language models.

Shapes: B rows, S places of a padded row, C classes, H hidden size.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from potstill.components.chat.trimming import Vocabulary, trim_folder
from potstill.components.losses.classification import classification_loss
from potstill.components.losses.hidden import Balance, HiddenLoss
from potstill.components.runtimes.classifier import class_names, load_classifier, load_text_tokenizer, pad_rows
from potstill.components.training.batches import length_groups
from potstill.components.training.counts import Weights
from potstill.components.training.learner import Sums, require_autocast
from potstill.components.training.ranks import wait_for_all
from potstill.components.training.students import from_teacher_layers
from potstill.components.training.training import Training
from potstill.components.training.vocabulary import cut_embedding
from potstill.core.environment import is_first_process
from potstill.core.errors import DataError
from potstill.core.files import write_json
from potstill.core.recipe import ClassifierRecipe, Schedule
from potstill.core.records import LabelledRow, read_labelled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ClassBatch", "ClassLearner", "ClassObjective", "ClassRow", "class_rows", "distil", "finetune"]


@dataclass(frozen=True)
class ClassRow:
    """Token ids of a text, and its class."""

    ids: tuple[int, ...]
    label: int
    n_supervised: int = 1
    n_prompt: int = 1
    """No tokens are shared between rows: those would lie before the last of these."""


def class_rows(rows: Sequence[LabelledRow], labels: Sequence[str], tokenizer: Tokenizer) -> list[ClassRow]:
    """Rows in token ids.

    Raises:
        DataError: a row's label is not among `labels`.
    """
    number = {label: n for n, label in enumerate(labels)}
    for row in rows:
        if row.label not in number:
            raise DataError(
                f"{row.where}: no row of data.train has the label {row.label!r}. Mend it, or add such rows."
            )
    encoded = tokenizer.encode_batch([row.text for row in rows])
    return [ClassRow(tuple(e.ids), number[row.label]) for e, row in zip(encoded, rows, strict=True)]


@dataclass(frozen=True)
class ClassBatch:
    """Rows in groups of near-equal length: ids and mask (B, S) of each group, and labels (B,) of all in that order."""

    groups: tuple[tuple[Tensor, Tensor], ...]
    labels: Tensor

    def to(self, device: torch.device) -> ClassBatch:
        groups = tuple((ids_BS.to(device), mask_BS.to(device)) for ids_BS, mask_BS in self.groups)
        return replace(self, groups=groups, labels=self.labels.to(device))


@dataclass(frozen=True)
class ClassObjective:
    """What a classifier learns from: right classes, and a teacher's beside it. `kept` as in `learner.Objective`."""

    teacher: PreTrainedModel | None = None
    _: KW_ONLY
    temperature: float = 1.0
    hard_label_weight: float = 0.0
    cosine_weight: float = 0.0
    kept: Sequence[int] | None = None

    @property
    def runs(self) -> PreTrainedModel | None:
        """The teacher that runs beside the student."""
        return self.teacher

    @property
    def own_text(self) -> None:
        """A class is not drawn as a text is."""

    def balance(self) -> Balance | None:
        """The cosine's weight is the recipe's, so there is nothing to balance."""
        return None

    def batch(self, examples: Sequence[ClassRow], pad_id: int) -> ClassBatch:
        """Rows as the learner reads them."""
        ordered = sorted(examples, key=lambda e: -len(e.ids))
        groups, start = [], 0
        for rows, width in length_groups([len(e.ids) for e in ordered]):
            groups.append(pad_rows([e.ids for e in ordered[start : start + rows]], pad_id, width))
            start += rows
        return ClassBatch(tuple(groups), torch.tensor([e.label for e in ordered]))

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> ClassLearner:
        """The student with this loss inside; classes are counted by its head, so `vocab_size` says nothing here."""
        return ClassLearner(student, self, autocast)

    def running(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """The models read such batches as they are."""
        return nullcontext()


class ClassLearner(nn.Module):
    """Sums over rows of (1 - hard) T^2 KL + hard CE + cosine_weight (mean over the row's tokens of 1 - cos)."""

    def __init__(self, student: PreTrainedModel, objective: ClassObjective, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self.autocast = autocast
        # in a tuple, so that the teacher is neither trained, wrapped, nor saved
        self.teacher = (objective.teacher,)
        self.hidden: HiddenLoss | None = None
        if objective.teacher is not None and objective.cosine_weight:
            sizes = student.config.hidden_size, objective.teacher.config.hidden_size
            self.hidden = HiddenLoss((0,), *sizes, "cosine")

    def forward(self, batch: ClassBatch, weights: Weights | None = None) -> Sums:
        """Sums over a batch; in `loss`, that of a row times `weights.text`, 1 where none is given."""
        require_autocast(self.autocast, batch.labels.device)
        objective, teacher = self.objective, self.teacher[0]
        kept_V = None if objective.kept is None else torch.tensor(objective.kept, device=batch.labels.device)
        parts_BC: list[Tensor] = []
        taught_BC: list[Tensor] = []
        cosine = torch.zeros((), device=batch.labels.device)
        for ids_BS, mask_BS in batch.groups:
            logits_BC, last_BSH = _forward(self.student, ids_BS, mask_BS, self.hidden is not None)
            parts_BC.append(logits_BC)
            if teacher is None:
                continue
            with torch.no_grad():
                read_BS = ids_BS if kept_V is None else kept_V[ids_BS]
                logits_BC, target_BSH = _forward(teacher, read_BS, mask_BS, self.hidden is not None)
            taught_BC.append(logits_BC)
            if self.hidden is not None:
                weights_BS = mask_BS / mask_BS.sum(1, keepdim=True)
                cosine = cosine + self.hidden([last_BSH], [target_BSH], weights_BS).loss
        sums = classification_loss(
            torch.cat(parts_BC),
            batch.labels,
            teacher_BC=torch.cat(taught_BC) if taught_BC else None,
            temperature=objective.temperature,
            hard_label_weight=objective.hard_label_weight,
        )
        loss = (weights or Weights()).text * (sums.loss + objective.cosine_weight * cosine)
        return Sums(loss, sums.divergence, sums.cross_entropy)


def _forward(model: PreTrainedModel, ids_BS: Tensor, mask_BS: Tensor, hidden: bool) -> tuple[Tensor, Tensor]:
    """Logits (B, C), and the last hidden states (B, S, H) if they are asked for."""
    out = model(input_ids=ids_BS, attention_mask=mask_BS, output_hidden_states=hidden)
    return out.logits, out.hidden_states[-1] if hidden else out.logits


def finetune(recipe: ClassifierRecipe, base: Path, out: Path) -> None:
    """See `potstill.stages.train.stage.finetune_classifier`."""
    labels = sorted({row.label for row in read_labelled(recipe.data.train)})
    _write_tokenizer(base, recipe.data.context, out / "tokenizer")
    training = _training(recipe, recipe.finetune_schedule, labels, out)

    def start() -> PreTrainedModel:
        torch.manual_seed(recipe.seed)  # of the new head
        return load_classifier(base, labels)

    summary = {"model": training.fit("model", start, ClassObjective())}
    if is_first_process():
        write_json(out / "summary.json", summary)


def distil(recipe: ClassifierRecipe, teacher_folder: Path, out: Path) -> None:
    """See `potstill.stages.train.stage.distil_classifier`."""
    settings, teacher = recipe.train, load_classifier(teacher_folder)
    labels = class_names(teacher)
    vocabulary = None
    if recipe.student.vocabulary:
        used = _used(teacher_folder, recipe, recipe.student.vocabulary)
        with tempfile.TemporaryDirectory() as trimmed:
            vocabulary = trim_folder(teacher_folder, used, Path(trimmed))
            _write_tokenizer(Path(trimmed), recipe.data.context, out / "tokenizer")
    else:
        _write_tokenizer(teacher_folder, recipe.data.context, out / "tokenizer")
    training = _training(recipe, recipe.schedule, labels, out)

    def start() -> PreTrainedModel:
        return _student(teacher, recipe.student.layers, vocabulary)

    objective = ClassObjective(
        teacher,
        temperature=settings.temperature,
        hard_label_weight=settings.hard_label_weight,
        cosine_weight=settings.cosine_weight,
        kept=vocabulary.kept if vocabulary else None,
    )
    student = training.fit("student", start, objective)
    control = training.fit("control", start, ClassObjective()) if settings.control == "sft" else None
    if is_first_process():
        write_json(out / "summary.json", {"student": student, "control": control})


def _training(recipe: ClassifierRecipe, schedule: Schedule, labels: Sequence[str], out: Path) -> Training:
    """Rows in the ids of `out/tokenizer`, and how they are trained on."""
    tokenizer = load_text_tokenizer(out / "tokenizer", recipe.data.context)
    data = recipe.data
    examples, validation = (
        class_rows(read_labelled(path), labels, tokenizer) if path else [] for path in (data.train, data.validation)
    )
    vocab_size = tokenizer.get_vocab_size()
    return Training(examples, validation, schedule, vocab_size, 0, out / "tokenizer", out, recipe.seed)


def _student(teacher: PreTrainedModel, layers: int, vocabulary: Vocabulary | None) -> PreTrainedModel:
    student = from_teacher_layers(teacher, layers)
    if vocabulary is not None:
        cut_embedding(student, vocabulary)
    return student


def _used(folder: Path, recipe: ClassifierRecipe, size: int) -> Iterable[int]:
    """Ids of the training rows, and lowest ids up to `size` in all; what a tokenizer needs besides is not counted."""
    tokenizer = load_text_tokenizer(folder, recipe.data.context)
    rows = tokenizer.encode_batch([row.text for row in read_labelled(recipe.data.train)])
    used = {index for row in rows for index in row.ids}
    # BERT's vocabulary begins with a thousand places that stand for nothing
    words = (i for text, i in tokenizer.get_vocab().items() if i not in used and not text.startswith("[unused"))
    return used.union(sorted(words)[: max(0, size - len(used))])


def _write_tokenizer(source: Path, context: int, out: Path) -> None:
    """The tokenizer's files as they are to be served: cut at `context`, never padded."""
    if is_first_process():
        out.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
        load_text_tokenizer(source, context).save(str(out / "tokenizer.json"))
    wait_for_all()
