"""A model's hidden states over a packed batch.

Shapes: T places, N supervised tokens, M tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from potstill.components.training.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["hidden_states", "output_head", "run_layers"]


def run_layers(model: PreTrainedModel, batch: Batch, layers: Sequence[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
    """One pass under `grouped_attention`: last hidden states (N, H) at the supervised positions, and those after each
    of `layers`, (M, H), at all tokens. The last layer's have been through the final norm."""
    out = model.base_model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        layout=batch.layout,
        use_cache=False,
        # entry 0 is the embedding; the others are not kept
        output_hidden_states=[layer + 1 for layer in layers] or None,
    )
    states = {layer: out.hidden_states[layer + 1][0].index_select(0, batch.tokens) for layer in layers}
    return out.last_hidden_state[0].index_select(0, batch.positions), states


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Last hidden states (N, H) at the batch's supervised positions, under `grouped_attention`."""
    return run_layers(model, batch)[0]


def output_head(model: PreTrainedModel) -> Tensor:
    """Output embedding (V, H), with the rows that only pad the vocabulary: a slice of it would be copied backward."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight
