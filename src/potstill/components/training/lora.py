"""Low-rank adapters (LoRA, Hu et al., 2021): trained with all other weights frozen, and merged at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["add_lora"]

# An update is scaled by alpha / rank. With a fixed alpha, one learning rate suits all ranks.
_ALPHA = 32


def add_lora(model: PreTrainedModel, rank: int, seed: int) -> Callable[[], Any]:
    """Freeze `model` and add trainable adapters to the matrices of its layers, not to embeddings and head.

    Returns:
        A function that merges the adapters into the weights and removes them.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    torch.manual_seed(seed)
    tuner = LoraModel(model, LoraConfig(r=rank, lora_alpha=_ALPHA, target_modules="all-linear"), "default")
    return tuner.merge_and_unload
