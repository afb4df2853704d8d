"""config.json of models that do not exist yet: pruned from another model, or made from a recipe's `shape`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.components.models.architectures import ARCHITECTURES
from potstill.components.models.configs import settings
from potstill.core.recipe import Shape

__all__ = ["pruned_config", "shape_config"]


def pruned_config(
    config: Mapping[str, Any],
    *,
    layers: int | None = None,
    hidden: int | None = None,
    ffn: int | None = None,
    kv_heads: int | None = None,
) -> dict[str, Any]:
    """config.json of a model that keeps so much of another one; a size that is None stays as it is.

    Each key-value head keeps the query heads that share it, and head_dim stays (`training.pruning`).

    Raises:
        ValueError: the config's architecture is not known.
    """
    _, values = settings(config)
    heads = values["num_attention_heads"]
    all_kv_heads = values.get("num_key_value_heads") or heads
    kept = kv_heads or all_kv_heads
    return {
        **values,
        "num_hidden_layers": layers or values["num_hidden_layers"],
        "hidden_size": hidden or values["hidden_size"],
        "intermediate_size": ffn or values["intermediate_size"],
        "num_key_value_heads": kept,
        "num_attention_heads": kept * (heads // all_kv_heads),
        "head_dim": values.get("head_dim") or values["hidden_size"] // heads,
        "layer_types": None,
    }


def shape_config(shape: Shape, vocab: int, context: int) -> dict[str, Any]:
    """config.json of a model that is trained from random weights, with a vocabulary of `vocab` tokens."""
    return {
        "architectures": [next(kind for kind, entry in ARCHITECTURES.items() if entry.name == shape.architecture)],
        "vocab_size": vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads or shape.heads,
        "head_dim": shape.head_dim or shape.hidden // shape.heads,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": context,
    }
