"""Hidden-state distillation in training: who teaches which layer, and what that weighs from step to step.

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

    `rows` are of the workload, in the teacher's ids and in the student's; `kept` the teacher's layers that the student
    was cut out of, if it was.
    """

    model: PreTrainedModel
    settings: Hidden
    rows: tuple[Sequence[Example], Sequence[Example]]
    kept: Sequence[int] = ()

    def loss(self, student: PreTrainedModel) -> HiddenLoss:
        """The loss of a student that has not been trained yet; it holds the projections, where widths differ."""
        sizes = student.config.hidden_size, self.model.config.hidden_size
        return HiddenLoss(self.layers(student), *sizes, self.settings.distance)

    def balance(self) -> Balance:
        """Its weight, before the first step."""
        return Balance(self.settings.balance)

    def layers(self, student: PreTrainedModel) -> tuple[int, ...]:
        """The teacher's layer for each of the student's."""
        own, taught = student.config.num_hidden_layers, self.model.config.num_hidden_layers
        if self.settings.layers == "similarity":
            theirs, ours = self.rows
            return similar_layers(self._states(student, ours), self._states(self.model, theirs))
        if self.kept:
            return cut_layers(self.kept, taught)
        # a single layer learns from the last, whose states the head reads
        return even_layers(taught, own) if own > 1 else (taught - 1,)

    @torch.no_grad()
    def _states(self, model: PreTrainedModel, rows: Sequence[Example]) -> list[Tensor]:
        """(M, hidden size) after each layer, of the first rows."""
        # several tokens for each dimension, or any two layers would look alike
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
