"""An encoder with a classification head: texts in, a class each out.

Shapes: B rows, S places of a padded row, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from potstill.components.chat.tokenizer_files import load_tokenizer
from potstill.components.runtimes.foreign import SAFE, loading, require_tensors
from potstill.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

__all__ = ["Classifier", "class_names", "load_classifier", "load_text_tokenizer", "pad_rows"]

_BATCH_ROWS = 64


def load_text_tokenizer(folder: Path, context: int) -> Tokenizer:
    """A model's tokenizer without the padding its file may ask for (some pad each text to 128), cut at `context`.

    Raises:
        RecipeError: the folder has no tokenizer.json, or it cannot be loaded.
    """
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(context)
    return tokenizer


def load_classifier(folder: Path, labels: Sequence[str] | None = None) -> PreTrainedModel:
    """An encoder with a classification head, in fp32.

    Args:
        folder: the model. One that has no such head gets a random one (from torch's global seed) for `labels`.
        labels: the classes, in order; None: those that the model has.

    Raises:
        RecipeError: transformers cannot load it, or a tensor is missing or has another shape, other than
            those of a new head.
    """
    from transformers import AutoModelForSequenceClassification

    classes: dict[str, Any] = {}
    if labels is not None:
        classes = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    must = "It must be an encoder such as BERT, with safetensors, that AutoModelForSequenceClassification knows."
    with loading(folder, must):
        # typed by hand, because the library's types do not know of output_loading_info
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **classes, **SAFE)
    model: PreTrainedModel = loaded[0]
    body = f"{model.base_model_prefix}."

    def is_head(name: str) -> bool:
        return not name.startswith(body) or ".pooler." in name

    require_tensors(folder, loaded[1], is_head if labels is not None else None)
    return model


def class_names(model: PreTrainedModel) -> list[str]:
    """A model's classes, in the order of its logits."""
    names: Any = model.config.id2label
    return [str(names[number]) for number in range(len(names))]


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (B, S) of rows padded on the right, to the longest or to `width`."""
    width = width or max(map(len, rows))
    ids_BS = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask_BS = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids_BS[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask_BS[number, : len(row)] = 1
    return ids_BS, mask_BS


class Classifier:
    """A finished classifier, as it is served: from its folder's own files alone."""

    def __init__(self, folder: Path, context: int) -> None:
        keep_freed_memory()
        self.tokenizer = load_text_tokenizer(folder, context)
        self.model = load_classifier(folder).eval()
        self.pad_id: int = self.model.config.pad_token_id or 0
        self.labels = class_names(self.model)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits (B, C) of texts, in one batch."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        ids_BS, mask_BS = (x.to(self.model.device) for x in pad_rows(rows, self.pad_id))
        logits_BC: Tensor = self.model(input_ids=ids_BS, attention_mask=mask_BS).logits.float()
        return logits_BC

    def classify(self, texts: Iterable[str]) -> Tensor:
        """Logits (B, C) of any number of texts, in batches of near-equal lengths, in the order given."""
        texts = list(texts)
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        logits_BC = torch.empty(len(texts), len(self.labels))
        for start in range(0, len(order), _BATCH_ROWS):
            batch = order[start : start + _BATCH_ROWS]
            logits_BC[batch] = self.logits([texts[n] for n in batch]).cpu()
        return logits_BC
