"""Encoders with a classification head: their rows, batches and loss, for the training loop of language models.

The method is DistilBERT's (Sanh et al. 2019): the student has evenly spaced layers of the teacher, and three losses: on
the teacher's softened classes, on the right class, and on the angle between last hidden states.

Shapes: B rows, S places of a padded row, C classes, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from potstill.components.losses.classification import classification_loss
from potstill.components.losses.hidden import Balance, HiddenLoss
from potstill.components.runtimes.classifier import pad_rows
from potstill.components.training.batches import length_groups
from potstill.components.training.counts import Weights
from potstill.components.training.learner import Sums, require_autocast
from potstill.core.errors import DataError
from potstill.core.records import LabelledRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ClassBatch", "ClassLearner", "ClassRow", "ClassifierTask", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """Token ids of a text, and the number of its class."""

    ids: tuple[int, ...]
    label: int
    n_supervised: int = 1
    n_prompt: int = 1
    """Rows share no prefix: a shared prefix ends before the last token of a prompt."""


def class_rows(rows: Sequence[LabelledRow], labels: Sequence[str], tokenizer: Tokenizer) -> list[ClassRow]:
    """Rows as token ids.

    Raises:
        DataError: the label of a row is not among `labels`.
    """
    number = {label: n for n, label in enumerate(labels)}
    for row in rows:
        if row.label not in number:
            raise DataError(
                f"{row.where}: no row of data.train has the label {row.label!r}. Fix the label, or add such rows."
            )
    encoded = tokenizer.encode_batch([row.text for row in rows])
    return [ClassRow(tuple(e.ids), number[row.label]) for e, row in zip(encoded, rows, strict=True)]


@dataclass(frozen=True)
class ClassBatch:
    """Rows in groups of near-equal length: ids and mask (B, S) per group, and labels (B,) of all rows in that order."""

    groups: tuple[tuple[Tensor, Tensor], ...]
    labels: Tensor

    def to(self, device: torch.device) -> ClassBatch:
        """The batch on another device."""
        groups = tuple((ids_BS.to(device), mask_BS.to(device)) for ids_BS, mask_BS in self.groups)
        return replace(self, groups=groups, labels=self.labels.to(device))


@dataclass(frozen=True)
class ClassifierTask:
    """What a classifier learns from: the right classes, and a teacher's distributions over them.

    teacher            the teacher; None trains on the right classes only
    temperature        softmax temperature of teacher and student
    hard_label_weight  weight of the cross-entropy, where the divergence has the rest
    cosine_weight      weight of 1 - cos between last hidden states
    kept_ids           for a trimmed vocabulary: token n of the student's is the teacher's token kept_ids[n]
    """

    teacher: PreTrainedModel | None = None
    _: KW_ONLY
    temperature: float = 1.0
    hard_label_weight: float = 0.0
    cosine_weight: float = 0.0
    kept_ids: Sequence[int] | None = None

    @property
    def online_teacher(self) -> PreTrainedModel | None:
        """The teacher that runs while the student trains."""
        return self.teacher

    @property
    def student_samples(self) -> None:
        """A classifier samples no text."""

    def balance(self) -> Balance | None:
        """The weight of the cosine is fixed by the recipe, so there is nothing to balance."""
        return None

    def batch(self, examples: Sequence[ClassRow], pad_id: int) -> ClassBatch:
        """Rows as the learner takes them."""
        ordered = sorted(examples, key=lambda e: -len(e.ids))
        groups, start = [], 0
        for rows, width in length_groups([len(e.ids) for e in ordered]):
            groups.append(pad_rows([e.ids for e in ordered[start : start + rows]], pad_id, width))
            start += rows
        return ClassBatch(tuple(groups), torch.tensor([e.label for e in ordered]))

    def learner(self, student: PreTrainedModel, vocab_size: int, autocast: bool) -> ClassLearner:
        """The student with this loss inside. `vocab_size` is not used: the head has a row per class."""
        return ClassLearner(student, self, autocast)

    def prepared(self, student: PreTrainedModel) -> AbstractContextManager[None]:
        """The models accept such batches as they are."""
        return nullcontext()


class ClassLearner(nn.Module):
    """Sums over rows of (1 - hard) T^2 KL + hard CE + cosine_weight (mean over the row's tokens of 1 - cos)."""

    def __init__(self, student: PreTrainedModel, task: ClassifierTask, autocast: bool) -> None:
        super().__init__()
        self.student = student
        self.task = task
        self.autocast = autocast
        # in a tuple, so that the teacher is not trained, wrapped or saved
        self.teacher = (task.teacher,)
        self.hidden: HiddenLoss | None = None
        if task.teacher is not None and task.cosine_weight:
            sizes = student.config.hidden_size, task.teacher.config.hidden_size
            self.hidden = HiddenLoss((0,), *sizes, "cosine")

    def forward(self, batch: ClassBatch, weights: Weights | None = None) -> Sums:
        """Sums over a batch; in `loss`, the loss of each row is multiplied by `weights.text` (default: 1)."""
        require_autocast(self.autocast, batch.labels.device)
        task, teacher = self.task, self.teacher[0]
        kept_V = None if task.kept_ids is None else torch.tensor(task.kept_ids, device=batch.labels.device)
        student_BC: list[Tensor] = []
        teacher_BC: list[Tensor] = []
        cosine = torch.zeros((), device=batch.labels.device)
        for ids_BS, mask_BS in batch.groups:
            logits_BC, last_BSH = _forward(self.student, ids_BS, mask_BS, self.hidden is not None)
            student_BC.append(logits_BC)
            if teacher is None:
                continue
            with torch.no_grad():
                read_BS = ids_BS if kept_V is None else kept_V[ids_BS]
                logits_BC, target_BSH = _forward(teacher, read_BS, mask_BS, self.hidden is not None)
            teacher_BC.append(logits_BC)
            if self.hidden is not None:
                weights_BS = mask_BS / mask_BS.sum(1, keepdim=True)
                cosine = cosine + self.hidden([last_BSH], [target_BSH], weights_BS).loss
        sums = classification_loss(
            torch.cat(student_BC),
            batch.labels,
            teacher_BC=torch.cat(teacher_BC) if teacher_BC else None,
            temperature=task.temperature,
            hard_label_weight=task.hard_label_weight,
        )
        loss = (weights or Weights()).text * (sums.loss + task.cosine_weight * cosine)
        return Sums(loss, sums.divergence, sums.cross_entropy)


def _forward(model: PreTrainedModel, ids_BS: Tensor, mask_BS: Tensor, hidden: bool) -> tuple[Tensor, Tensor]:
    """Logits (B, C), and the last hidden states (B, S, H) if `hidden` is set."""
    out = model(input_ids=ids_BS, attention_mask=mask_BS, output_hidden_states=hidden)
    return out.logits, out.hidden_states[-1] if hidden else out.logits
