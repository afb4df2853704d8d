"""A small random checkpoint with a student's tokenizer and features, to try in llama.cpp before anything is trained.

Layers, heads and widths are few and narrow. All else is the student's: vocabulary, size of a head, rotary embedding,
biases, tied or separate head, and tokenizer.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from potstill.components.conversion.weights import source_name
from potstill.components.models.configs import from_config
from potstill.components.models.derived import pruned_config
from potstill.core.files import write_json

__all__ = ["write_trial_checkpoint"]

_LAYERS, _HIDDEN, _FFN = 2, 64, 64
_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_NOT_STORED = "rope_f"  # frequencies and factors, which are computed from config.json


def write_trial_checkpoint(config: Mapping[str, Any], tokenizer_from: Path, out: Path) -> None:
    """Write a folder with config.json, model.safetensors (F16, the same numbers each time) and the tokenizer's files.

    Args:
        config: the student's config.json.
        tokenizer_from: folder with the student's tokenizer.
        out: an empty folder.
    """
    from safetensors.numpy import save_file

    spec = from_config(config)
    sizes = {"layers": min(_LAYERS, spec.layers), "hidden": min(_HIDDEN, spec.hidden), "ffn": min(_FFN, spec.ffn)}
    small = pruned_config(config, **sizes, kv_heads=1)
    random = np.random.default_rng(0)
    tensors = {
        source_name(name): (random.standard_normal(dims, np.float32) * 0.05 + float(len(dims) == 1)).astype(np.float16)
        for name, dims in from_config(small).tensors.items()
        if not name.startswith(_NOT_STORED)
    }
    write_json(out / "config.json", small)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for file in _FILES:
        if (tokenizer_from / file).is_file():
            shutil.copyfile(tokenizer_from / file, out / file)
