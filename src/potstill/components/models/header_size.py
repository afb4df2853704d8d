"""Size of a GGUF file's header: everything before the tensors' data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from potstill.components.models.spec import ModelSpec

__all__ = ["estimated_header_bytes", "header_bytes"]

_OTHER_KEYS_BYTES = 1350
"""Metadata other than vocabulary and chat template: 1,190 to 1,510 bytes in measured files, depending on how much a
file says about where it comes from."""


def header_bytes(values: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> int:
    """Exact bytes of a header with these keys and tensors, as llama.cpp and gguf-py write it.

    Args:
        values: key -> str, bool, int (32 bits), float (32 bits), or a list of one of these.
        tensors: name -> dimensions.
    """
    size = 4 + 4 + 8 + 8 + sum(8 + len(key.encode()) + 4 + _value_bytes(value) for key, value in values.items())
    return math.ceil((size + _entries_bytes(tensors)) / 32) * 32


def _value_bytes(value: Any) -> int:
    if isinstance(value, str | bytes):
        return 8 + len(value.encode() if isinstance(value, str) else value)
    if isinstance(value, list):
        return 4 + 8 + sum(map(_value_bytes, value))
    return 1 if isinstance(value, bool) else 4


def _entries_bytes(tensors: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of the list of tensors: name, number of dimensions, dimensions, type and offset of each."""
    return sum(8 + len(name.encode()) + 4 + 8 * len(dims) + 4 + 8 for name, dims in tensors.items())


def estimated_header_bytes(spec: ModelSpec, tokens: Iterable[str], merges: Iterable[str] | None, template: str) -> int:
    """Bytes of the header that the exporter will write for a model, within a few hundred bytes.

    Args:
        spec: the model.
        tokens: every token of the tokenizer; padding tokens up to `spec.vocab` are added.
        merges: each as "left right"; None for a SentencePiece vocabulary, which has scores instead.
        template: source of the chat template.
    """
    texts = [len(token.encode()) for token in tokens]
    padding = sum(len(f"[PAD{i}]") for i in range(len(texts), spec.vocab))
    vocabulary = sum(texts) + padding + spec.vocab * (8 + 4)
    pairs = 4 * spec.vocab if merges is None else sum(8 + len(merge.encode()) for merge in merges)
    return _OTHER_KEYS_BYTES + vocabulary + pairs + len(template.encode()) + _entries_bytes(spec.tensors) + 32
