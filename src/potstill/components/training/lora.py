"""Low-rank adapters (LoRA, Hu et al., 2021): trained beside frozen matrices, and added to them when done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["add_lora"]

# An update is scaled by alpha / rank; with alpha fixed, one learning rate does for all ranks.
_ALPHA = 32


def add_lora(model: PreTrainedModel, rank: int, seed: int) -> Callable[[], Any]:
    """Freeze `model` and put trainable adapters beside the matrices of its layers; embeddings and head have none.

    Returns:
        Adds the adapters to the weights and takes them out, so that the model is as before but for its values.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    torch.manual_seed(seed)
    tuner = LoraModel(model, LoraConfig(r=rank, lora_alpha=_ALPHA, target_modules="all-linear"), "default")
    return tuner.merge_and_unload
