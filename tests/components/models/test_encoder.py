"""Layers of encoders are found by the names that their classes give them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from potstill.components.models.encoder import EncoderSizes


@pytest.mark.parametrize("prefix", ["bert.encoder.layer.", "encoder.layer.", "transformer.layer.", "layers."])
def test_parameters_are_counted_by_part(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10}))
    tensors = {f"{prefix}{i}.weight": np.zeros((2, 3), np.float32) for i in range(4)}
    tensors |= {"embeddings.word_embeddings.weight": np.zeros((10, 2), np.float32), "norm": np.zeros(2, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    sizes = EncoderSizes.of(tmp_path)
    assert sizes.layers == (6, 6, 6, 6) and sizes.embedding == (10, 2) and sizes.rest == 2
    assert sizes.classifier(3).student(2, 5).parameters == 2 * 6 + 5 * 2 + (3 * 2 + 3) + 2
