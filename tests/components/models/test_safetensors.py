"""Parameters of safetensors files, counted from their headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.components.models.safetensors import safetensors_format, safetensors_parameters
from potstill.core.errors import RecipeError


def test_shards_are_counted_and_missing_or_cut_ones_are_reported(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, eos_token_id=2))
    model.save_pretrained(tmp_path, max_shard_size="150KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert safetensors_parameters(tmp_path) == model.num_parameters()
    assert safetensors_format(tmp_path) == "F32"
    model.bfloat16().save_pretrained(tmp_path / "half")
    assert safetensors_format(tmp_path / "half") == "BF16"
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(RecipeError, match="not a whole safetensors file"):
        safetensors_parameters(tmp_path)
    shards[1].unlink()
    with pytest.raises(RecipeError, match=rf"{shards[1].name}: no such file"):
        safetensors_parameters(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(RecipeError, match="not an index"):
        safetensors_parameters(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 64,
        b"\xff" * 64,
        b"version https://git-lfs.github.com/spec/v1\n",
        *(len(header).to_bytes(8, "little") + header + b"data" for header in (b"[" * 100_000, b"9" * 5000, b"{}")),
    ],
)
def test_files_that_are_no_safetensors_are_reported(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        safetensors_parameters(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(RecipeError, match="not a whole safetensors file"):
        safetensors_parameters(tmp_path)
