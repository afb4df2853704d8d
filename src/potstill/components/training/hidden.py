"""Hidden-state distillation: which teacher layer each student layer learns from, and the weight of this loss per step.

Shapes: M tokens of a batch, H student's hidden size, G teacher's hidden size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from potstill.components.chat.format import Example
from potstill.components.losses.hidden import Balance, HiddenLoss, cut_layers, similar_layers
from potstill.components.models.layers import even_layers
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack, token_batches
from potstill.components.training.forward import run_layers
from potstill.core.recipe import Hidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["HiddenTeacher"]

_BATCH_TOKENS = 4096
_TOKENS_PER_CHANNEL = 4


@dataclass(frozen=True)
class HiddenTeacher:
    """A teacher of hidden states.

    model        the teacher
    settings     the recipe's section
    rows         rows of the workload in the teacher's token ids, and in the student's
    kept_layers  the teacher's layers that the student started from, if it did
    """

    model: PreTrainedModel
    settings: Hidden
    rows: tuple[Sequence[Example], Sequence[Example]]
    kept_layers: Sequence[int] = ()

    def loss(self, student: PreTrainedModel) -> HiddenLoss:
        """The loss of a student before its training; it holds the projections if the widths differ."""
        sizes = student.config.hidden_size, self.model.config.hidden_size
        return HiddenLoss(self.layers(student), *sizes, self.settings.distance)

    def balance(self) -> Balance:
        """The weight of the loss, before the first step."""
        return Balance(self.settings.balance)

    def layers(self, student: PreTrainedModel) -> tuple[int, ...]:
        """The teacher layer for each student layer."""
        layers, teacher_layers = student.config.num_hidden_layers, self.model.config.num_hidden_layers
        if self.settings.layers == "similarity":
            teacher_rows, student_rows = self.rows
            return similar_layers(self._states(student, student_rows), self._states(self.model, teacher_rows))
        if self.kept_layers:
            return cut_layers(self.kept_layers, teacher_layers)
        # a single layer learns from the last one, whose states the output head reads
        return even_layers(teacher_layers, layers) if layers > 1 else (teacher_layers - 1,)

    @torch.no_grad()
    def _states(self, model: PreTrainedModel, rows: Sequence[Example]) -> list[Tensor]:
        """Hidden states (M, hidden size) after each layer, on the first rows."""
        # with fewer than several tokens per dimension, any two layers would look alike
        ends = list(accumulate(len(e.ids) for e in rows))
        rows = rows[: 1 + bisect_left(ends, _TOKENS_PER_CHANNEL * self.model.config.hidden_size)]
        layers = range(model.config.num_hidden_layers)
        parts = []
        with grouped_attention(model):
            for indices in token_batches([len(e.ids) for e in rows], _BATCH_TOKENS):
                batch = pack([rows[i] for i in indices], 0).to(model.device)
                _, states = run_layers(model, batch, layers)
                parts.append([states[layer].cpu() for layer in layers])
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]
