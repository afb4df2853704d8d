"""A smaller vocabulary for a student: the tokenizer is trimmed, and embedding and head keep the rows of its tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from potstill.components.chat.format import Example
from potstill.components.chat.trimming import Vocabulary, renumbered_settings, trim_folder
from potstill.components.training.ranks import wait_for_all
from potstill.core.environment import is_first_process
from potstill.core.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["cut_embedding", "trim_vocabulary"]


def cut_embedding(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Keep only the rows of the kept tokens, in place, in the embedding and in the output head, tied or not.

    The logits of the kept tokens stay the same. Rows that only pad the vocabulary are removed. A classifier has no such
    head. The special token ids of `model.config` and `model.generation_config` are renumbered.
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


def trim_vocabulary(tokenizer_from: Path, examples: Sequence[Example], out: Path) -> Vocabulary:
    """Trim a tokenizer to the tokens of rows, as `out/tokenizer`; `out/kept.json` has the old id of each new one."""
    used = {index for example in examples for index in example.ids}
    with tempfile.TemporaryDirectory() as unused:
        first = is_first_process()
        vocabulary = trim_folder(tokenizer_from, used, out / "tokenizer" if first else Path(unused))
    if first:
        write_json(out / "kept.json", vocabulary.kept)
    wait_for_all()
    return vocabulary
