"""Hidden states of a model over a packed batch.

Shapes: T places, N supervised tokens, M tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from potstill.components.training.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["hidden_states", "layers_alone", "output_head", "run_layers"]


def run_layers(model: PreTrainedModel, batch: Batch, layers: Sequence[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
    """One forward pass under `grouped_attention`.

    Returns:
        The last hidden states (N, H) at the supervised positions; and the hidden states (M, H) after each of `layers`
        at all tokens, where those of the last layer have been through the final norm.
    """
    out = model.base_model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        layout=batch.layout,
        use_cache=False,
        # entry 0 is the embedding; layers that are not listed are not kept
        output_hidden_states=[layer + 1 for layer in layers] or None,
    )
    states = {layer: out.hidden_states[layer + 1][0].index_select(0, batch.tokens) for layer in layers}
    return out.last_hidden_state[0].index_select(0, batch.positions), states


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Last hidden states (N, H) at the batch's supervised positions, under `grouped_attention`."""
    return run_layers(model, batch)[0]


def output_head(model: PreTrainedModel) -> Tensor:
    """Output embedding (V, H), padding rows included: the backward pass would copy a slice of it."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


@contextmanager
def layers_alone(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[int]:
    """Within the block the model runs only these layers, or all if `layers` is empty. Yields how many layers run."""
    if not layers:
        yield model.config.num_hidden_layers
        return
    whole: Any = model.base_model.layers
    try:
        model.base_model.layers = nn.ModuleList(whole[i] for i in layers)
        yield len(layers)
    finally:
        model.base_model.layers = whole
