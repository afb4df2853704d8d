"""A local teacher's distributions over rows, computed and stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from potstill.components.chat.format import Example
from potstill.components.targets import TargetsWriter, sequence_key
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack, token_batches
from potstill.components.training.forward import hidden_states, output_head
from potstill.core.memory import keep_freed_memory
from potstill.core.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["write_targets"]

_CHUNK_TOKENS = 512


@torch.no_grad()
def write_targets(
    teacher: PreTrainedModel, examples: Sequence[Example], writer: TargetsWriter, batch_tokens: int
) -> None:
    """Add every row that the store does not hold yet. Logits exist for 512 tokens at a time."""
    keep_freed_memory()
    teacher.eval()
    missing = [e for e in examples if sequence_key(e.ids, e.n_prompt) not in writer]
    head_VH = output_head(teacher)[: writer.meta.vocab_size]
    with (
        grouped_attention(teacher),
        progress_bar("score answers", len(examples), len(examples) - len(missing)) as ticker,
    ):
        for rows in token_batches([len(e.ids) for e in missing], batch_tokens):
            ordered: list[Example] = []

            def remember(packed: Sequence[Example], ordered: list[Example] = ordered) -> None:
                ordered.extend(packed)

            batch = pack([missing[i] for i in rows], 0, remember).to(teacher.device)
            hidden_NH = hidden_states(teacher, batch)
            writer.add_batch([sequence_key(e.ids, e.n_prompt) for e in ordered], _logits(hidden_NH, head_VH))
            ticker.advance(len(rows))


def _logits(hidden_NH: Tensor, head_VH: Tensor) -> Iterator[Tensor]:
    """fp32 logits, one chunk of rows at a time."""
    head = head_VH.float()
    for chunk_NH in hidden_NH.split(_CHUNK_TOKENS):
        yield chunk_NH.float() @ head.T
