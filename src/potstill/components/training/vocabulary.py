"""The rows of a model's embedding and head that its own vocabulary keeps (`chat.trimming` says which)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from potstill.components.chat.trimming import Vocabulary, renumbered_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["cut_embedding"]


def cut_embedding(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Keep, in place, the rows of the kept tokens in the embedding and in the output head, tied or not.

    The head's logits of kept tokens stay what they were; rows that only pad the vocabulary go. A classifier has no such
    head. The special ids of `model.config` and `model.generation_config` follow.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    kept_K = torch.tensor(vocabulary.kept, device=embedding.weight.device)
    size = len(vocabulary.kept)
    embedding.weight = nn.Parameter(embedding.weight.detach()[kept_K])
    embedding.num_embeddings = size
    if head is not None:
        head.weight = embedding.weight if tied else nn.Parameter(head.weight.detach()[kept_K])
        if getattr(head, "bias", None) is not None:
            head.bias = nn.Parameter(head.bias.detach()[kept_K])
        head.out_features = size
    configs = (model.config, getattr(model, "generation_config", None))
    for config in filter(None, configs):
        for key, value in renumbered_settings(config.to_dict(), vocabulary.new_ids).items():
            setattr(config, key, value)
    model.config.vocab_size = size
    embedding.padding_idx = model.config.pad_token_id
