"""Shapes, types and sizes of many architectures against transformers, gguf, the exporter and llama.cpp itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import UsageError
from potstill.gguf_types import BLOCKS, QUANTIZATIONS, TYPE_NAMES
from potstill.plan import arithmetic
from potstill.plan.anatomy import Anatomy
from potstill.plan.configs import from_config
from potstill.plan.gguf_header import from_gguf, header_bytes
from potstill.plan.memory import kv_bytes, memory
from potstill.plan.random_gguf import random_metadata, write_random_gguf
from potstill.plan.source import load_anatomy
from potstill.plan.speed import read_bytes

CONFIGS = Path(__file__).parent / "configs"
SMALL: dict[str, Any] = {
    "vocab_size": 600, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
MLA: dict[str, Any] = {
    "kv_lora_rank": 128, "q_lora_rank": 96, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"head_dim": 128},
    "Mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen2Moe": {
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
        "shared_expert_intermediate_size": 512, "decoder_sparse_step": 1,
    },
    "Qwen3": {"head_dim": 128},
    "Qwen3Moe": {"num_experts": 8, "num_experts_per_tok": 4, "moe_intermediate_size": 128, "head_dim": 64},
    "Gemma2": {"head_dim": 64, "sliding_window": 256, "tie_word_embeddings": True},
    "Gemma3": {"head_dim": 64, "sliding_window": 256, "num_hidden_layers": 7, "tie_word_embeddings": True},
    "Phi3": {"pad_token_id": 0},
    "DeepseekV3": MLA | {"topk_method": "noaux_tc", "n_group": 1, "topk_group": 1},
    "GptOss": {"head_dim": 64, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 128},
}  # fmt: skip


def anatomy(family: str, **changes: Any) -> Anatomy:
    return from_config(SMALL | FAMILIES[family] | {"architectures": [f"{family}ForCausalLM"]} | changes, family)


def public(name: str) -> Anatomy:
    return load_anatomy(str(CONFIGS / f"{name}.json"))


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str) -> None:
    import torch
    import transformers

    kind = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{kind}Config")(**(SMALL | FAMILIES[family]))
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.tie_weights()
    theirs = sum(p.numel() for p in model.parameters())
    # the routing bias is a buffer in transformers, a tensor in the file
    theirs += sum(b.numel() for name, b in model.named_buffers() if "e_score_correction_bias" in name)
    assert anatomy(family, tie_word_embeddings=config.tie_word_embeddings).parameters == theirs


@pytest.mark.parametrize(
    ("name", "quantization", "bits", "tolerance"),
    [
        # llama.cpp's own table for Llama-3.1-8B
        ("llama-3.1-8b", "Q4_K_M", 4.8944, 1e-4),
        ("llama-3.1-8b", "Q5_K_M", 5.7036, 1e-4),
        ("llama-3.1-8b", "Q6_K", 6.5633, 1e-4),
        ("llama-3.1-8b", "Q8_0", 8.5008, 1e-4),
        ("llama-3.1-8b", "Q4_K_S", 4.6672, 1e-4),
        ("llama-3.1-8b", "Q3_K_M", 3.9960, 1e-4),
        ("llama-3.1-8b", "Q2_K", 3.1593, 1e-4),
        ("qwen2.5-0.5b", "Q4_K_M", 6.35, 0.006),
        ("llama-2-7b", "Q4_K_M", 4.84, 0.006),
        ("qwen2.5-7b", "Q4_K_M", 4.91, 0.006),
        ("qwen2.5-1.5b", "Q4_K_M", 5.08, 0.006),
        ("qwen3-0.6b", "Q4_K_M", 5.24, 0.006),
    ],
)
def test_published_bits_per_weight(name: str, quantization: str, bits: float, tolerance: float) -> None:
    assert public(name).quantized(quantization).bits_per_weight == pytest.approx(bits, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("llama-3.1-8b", 8_030_261_248), ("qwen2.5-0.5b", 494_032_768), ("qwen3-30b-a3b", 30_532_122_624)],
)
def test_published_parameters(name: str, parameters: int) -> None:
    assert public(name).parameters == parameters


def test_a_70b_keeps_its_values_at_five_bits() -> None:
    types = public("llama-3.1-70b").quantized("Q4_K_M").types
    assert {kind for name, kind in types.items() if "attn_v" in name} == {"Q5_K", "Q6_K"}
    assert public("llama-3.1-70b").quantized("Q4_K_M").weight_bytes == pytest.approx(42.5e9, rel=0.002)
    assert "Q4_K" in {kind for name, kind in public("llama-3.1-8b").quantized("Q4_K_M").types.items() if "_v." in name}


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-0.5b", "qwen3-0.6b", "qwen2.5-1.5b", "qwen3-4b"])
def test_types_are_the_exporters(name: str, quantization: str) -> None:
    from potstill.export.quantize import quantized_nbytes, tensor_type

    model = public(name).quantized(quantization)
    theirs = {
        tensor: tensor_type(tensor, dims, model.layers, quantization, tied=model.tied)
        for tensor, dims in model.tensors.items()
    }
    assert {tensor: kind.name for tensor, kind in theirs.items()} == dict(model.types)
    assert model.weight_bytes == sum(quantized_nbytes(dims, theirs[name]) for name, dims in model.tensors.items())


def test_blocks_are_gguf_s_own() -> None:
    import gguf

    assert {name: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] for name in BLOCKS} == BLOCKS
    assert all(gguf.GGMLQuantizationType(number).name == name for number, name in TYPE_NAMES.items())


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-0.5b", "qwen3-0.6b"])
def test_the_recipe_s_arithmetic_agrees(name: str) -> None:
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    shape, model = arithmetic.ModelShape.from_config(config), public(name)
    assert arithmetic.parameter_count(shape) == model.parameters
    assert arithmetic.kv_cache_bytes(shape, 4096) == kv_bytes(model, 4096)


def test_caches_of_known_models() -> None:
    # 2 x 32 layers x 32 heads x 128 x 2 bytes x 4096: the 2 GiB that no 6 GB card has to spare
    assert kv_bytes(public("llama-2-7b"), 4096) == 2**31
    assert (
        kv_bytes(public("qwen3-0.6b"), 1, "f16") == 256 * 114_688
    )  # head_dim as given; a cache has 256 cells at least
    assert kv_bytes(public("llama-3.1-8b"), 4096, "q8_0") == kv_bytes(public("llama-3.1-8b"), 4096) * 17 // 32
    # DeepSeek: one latent of 512 + 64 a token and layer, no values
    assert kv_bytes(public("deepseek-v3"), 4096) == 61 * 576 * 4096 * 2
    # Gemma 3 1B: 4 of 26 layers see everything, the others 512 + a micro-batch of 512
    assert kv_bytes(public("gemma-3-1b"), 8192) == 2 * 256 * 2 * (4 * 8192 + 22 * 1024)
    assert kv_bytes(public("llama-3.1-8b"), 1000, parallel=3) == 3 * kv_bytes(public("llama-3.1-8b"), 1024)


def test_a_token_reads_its_experts_and_one_row_of_the_embedding() -> None:
    model = public("qwen3-30b-a3b").quantized("F16")
    dense, experts = 0, 0
    for name, dims in model.tensors.items():
        size = math.prod(dims) * (4 if model.types[name] == "F32" else 2)
        if "_exps" in name:
            experts += size
        elif name != "token_embd.weight":
            dense += size
    assert read_bytes(model) == pytest.approx(dense + experts * 8 / 128 + 2 * 2048)
    tied = public("qwen2.5-0.5b").quantized("Q8_0")
    assert read_bytes(tied) == tied.weight_bytes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_K_M"])
def test_a_written_file_has_the_predicted_bytes_and_reads_back(tmp_path: Path, family: str, quantization: str) -> None:
    model = anatomy(family).quantized(quantization)
    metadata, path = random_metadata(model), tmp_path / "m.gguf"
    write_random_gguf(model, path, metadata)
    header = header_bytes(metadata, dict(model.tensors))
    assert path.stat().st_size == header + model.data_bytes
    read = from_gguf(path)
    for key in ("tensors", "types", "attention", "context", "experts", "used", "vocab", "hidden", "gqa"):
        assert getattr(read, key) == getattr(model, key), key
    assert read.header_bytes == header
    assert memory(read, 2048) == memory(replace(model, header_bytes=header), 2048)


@pytest.mark.parametrize("family", ["Gemma3", "DeepseekV3", "Qwen3Moe"])
def test_llama_cpp_runs_a_file_of_the_predicted_shape(tmp_path: Path, family: str) -> None:
    """What it holds in memory is measured by benchmarks/plan.py."""
    pytest.importorskip("xllamacpp")
    from potstill.plan.calibrate import serve_once

    write_random_gguf(anatomy(family, vocab_size=2000).quantized("Q8_0"), tmp_path / "m.gguf")
    found = serve_once(tmp_path / "m.gguf", context=512, kv_type="f16", prompt=100, decode=2)
    assert found["peak_bytes"] > (tmp_path / "m.gguf").stat().st_size


@pytest.mark.parametrize("cut", [0, 3, 10, 40, 300, 9000, -1])
def test_a_file_cut_short_is_told(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.gguf"
    write_random_gguf(anatomy("Llama").quantized("Q8_0"), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UsageError, match=r"m\.gguf: .*(cut short|not a GGUF|cannot be read)"):
        from_gguf(path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM is not one of"),
        (SMALL | {"architectures": ["LlamaForCausalLM"], "hidden_size": 0}, "hidden_size as a positive integer"),
        (SMALL | {"architectures": ["LlamaForCausalLM"], "vocab_size": "many"}, "vocab_size as a positive integer"),
        ([], "must hold a JSON object"),
    ],
)
def test_configs_that_do_not_say_are_told(tmp_path: Path, config: Any, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=said):
        load_anatomy(str(tmp_path))


def test_a_shape_on_the_command_line(tmp_path: Path) -> None:
    words = "llama:layers=32,hidden=4096,ffn=14336,heads=32,kv_heads=8,vocab=128256"
    named = load_anatomy(words)
    assert named.parameters == public("llama-3.1-8b").parameters
    for wrong, said in {
        "llama:layers=2,hiden=3": "'hiden=3' is not KEY=NUMBER",
        "llama:layers=2": "heads is missing",
        "bert:layers=2": "'bert' is not one of",
        str(tmp_path): "neither config.json nor a GGUF",
        "nothing": "no such file or folder",
    }.items():
        with pytest.raises(UsageError, match=said):
            load_anatomy(wrong)


def test_every_quantization_has_types_for_every_family() -> None:
    for family in FAMILIES:
        sizes = {q: anatomy(family).quantized(q).weight_bytes for q in QUANTIZATIONS}
        assert sizes["F32"] > sizes["F16"] > sizes["Q8_0"] > sizes["Q4_K_M"] >= sizes["Q4_K_S"] > sizes["Q2_K"]
