"""Shapes, types and sizes of many architectures against transformers, gguf, the exporter and llama.cpp itself."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures import CONFIGS
from potstill.components.hardware.memory import kv_bytes, memory
from potstill.components.hardware.random_gguf import _SCALES, random_metadata, write_random_gguf
from potstill.components.hardware.speed import bytes_by_type
from potstill.components.models.architectures import ARCHITECTURES
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.gguf_types import BLOCKS, QUANTIZATIONS, TYPE_NAMES
from potstill.components.models.header_size import header_bytes
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec

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
    "DeepseekV2": MLA | {"topk_method": "greedy"},
    "DeepseekV3": MLA | {"topk_method": "noaux_tc", "n_group": 1, "topk_group": 1},
    "GptOss": {"head_dim": 64, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 128},
    "SmolLM3": {"pad_token_id": 0},
    "Mistral3": {"head_dim": 128},
    "Qwen2VL": {"tie_word_embeddings": True},
    "Qwen2_5_VL": {},
    "Phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True},
    "Llama4": {
        "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 768, "head_dim": 64,
        "interleave_moe_layer_step": 2, "pad_token_id": 0,
    },
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3"}
PICTURES = ("Mistral3", "Qwen2VL", "Qwen2_5_VL")
"""Their one class sees pictures too."""


def class_of(family: str) -> str:
    return family + ("ForConditionalGeneration" if family in PICTURES else "ForCausalLM")


def spec_of(family: str, **changes: Any) -> ModelSpec:
    return from_config(SMALL | FAMILIES[family] | {"architectures": [class_of(family)]} | changes, family)


def public(name: str) -> ModelSpec:
    return load_spec(str(CONFIGS / f"{name}.json"))


def theirs(family: str, values: dict[str, Any]) -> tuple[int, bool]:
    """Parameters of transformers' model, of its text part alone, and whether it is tied."""
    import torch
    import transformers

    inner = {"Gemma3": "Gemma3Text", "Llama4": "Llama4Text", "Mistral3": "Mistral"}
    inner |= {name: f"{name}Text" for name in ("Qwen2VL", "Qwen2_5_VL")}
    config = getattr(transformers, f"{inner.get(family, family)}Config")(**values)
    headless = family in ("Qwen2VL", "Qwen2_5_VL")
    kind = f"{family}TextModel" if headless else f"{inner[family] if family in PICTURES else family}ForCausalLM"
    with torch.device("meta"):
        model = getattr(transformers, kind)(config)
    model.tie_weights()
    found = sum(p.numel() for p in model.parameters())
    # the routing bias is a buffer in transformers, a tensor in the file
    found += sum(b.numel() for name, b in model.named_buffers() if "e_score_correction_bias" in name)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    return found + (config.vocab_size * config.hidden_size if headless and not tied else 0), tied


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str) -> None:
    found, tied = theirs(family, SMALL | FAMILIES[family])
    assert spec_of(family, tie_word_embeddings=tied).parameters == found


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("Deepseek")])
def test_what_a_config_leaves_out_is_what_transformers_takes(family: str) -> None:
    sizes = {
        "vocab_size": 600, "hidden_size": 2048, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 32, "pad_token_id": 0,
    }  # fmt: skip
    made = from_config(sizes | {"architectures": [class_of(family)]})
    found, tied = theirs(family, sizes)
    assert (made.parameters, made.tied) == (found, tied)


@pytest.mark.parametrize("family", ["Qwen2Moe", "Qwen3Moe"])
@pytest.mark.parametrize("dense", [{"mlp_only_layers": [0, 3]}, {"decoder_sparse_step": 2}])
def test_dense_layers_among_those_of_experts(family: str, dense: dict[str, Any]) -> None:
    found, _ = theirs(family, SMALL | FAMILIES[family] | dense)
    made = spec_of(family, **dense)
    assert made.parameters == found
    assert "blk.0.ffn_up.weight" in made.tensors and "blk.1.ffn_up_exps.weight" in made.tensors
    assert made.experts == 8
    plain = spec_of(family, mlp_only_layers=[0, 1, 2, 3])
    assert (plain.experts, plain.experts_used) == (0, 0)


def test_every_class_is_tested_and_one_that_sees_pictures_is_its_text_model() -> None:
    nested = {"Gemma3ForConditionalGeneration": "Gemma3", "Llama4ForConditionalGeneration": "Llama4"}
    assert {class_of(family) for family in FAMILIES} | nested.keys() == ARCHITECTURES.keys()
    for kind, family in (nested | {class_of(name): name for name in PICTURES}).items():
        flat = SMALL | FAMILIES[family]
        inner = {"architectures": [kind], "text_config": flat, "vision_config": {"hidden_size": 64}}
        assert from_config(inner, family) == from_config(flat | {"architectures": [kind]}, family) == spec_of(family)
    # Ministral 3 is a Mistral in all but the name of its rope's scaling
    assert spec_of("Mistral3", text_config={"model_type": "ministral3"}).architecture == "mistral3"


def test_mistral_small_4_has_the_attention_and_experts_of_deepseek() -> None:
    """118.97 billion parameters, as its name (119B) says; a plain Mistral of these sizes would have 8.9 billion."""
    text = {
        "model_type": "mistral4", "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 12288,
        "moe_intermediate_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 32,
        "n_shared_experts": 1, "n_routed_experts": 128, "kv_lora_rank": 256, "q_lora_rank": 1024,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 64, "num_experts_per_tok": 4,
        "first_k_dense_replace": 0, "head_dim": 128,
    }  # fmt: skip
    model = from_config({"architectures": ["Mistral3ForConditionalGeneration"], "text_config": text})
    assert (model.architecture, model.experts, model.experts_used) == ("mistral4", 128, 4)
    assert round(model.parameters / 1e9, 2) == 118.97
    assert model.kv_elements == 36 * (256 + 64)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Mistral3ForConditionalGeneration", "mistral5"), ("Gemma3ForConditionalGeneration", "mistral4"),
        ("Llama4ForConditionalGeneration", ["llama4_text"]), ("LlamaForCausalLM", "llama"),
    ],
)  # fmt: skip
def test_a_text_model_that_a_class_is_not_known_to_hold_is_refused(kind: str, text: Any) -> None:
    with pytest.raises(ValueError, match=r"text_config\.model_type is .*Give the model's GGUF file instead"):
        from_config(SMALL | {"architectures": [kind], "text_config": {"model_type": text}})


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
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("mistral-small-3.1-24b", 23_572_403_200),
        ("qwen2.5-vl-7b", 7_615_616_512),
        ("smollm3-3b", 3_075_098_624),
        ("phi-3.5-moe", 41_873_153_344),
        ("gpt-oss-20b", 20_914_757_184),
        ("llama-4-scout", 107_769_861_120),
    ],
)
def test_published_parameters(name: str, parameters: int) -> None:
    assert public(name).parameters == parameters


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-0.5b", "qwen3-0.6b", "qwen2.5-1.5b", "qwen3-4b"])
def test_types_are_the_exporters(name: str, quantization: str) -> None:
    from potstill.components.conversion.quantize import quantized_nbytes, tensor_type

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
    assert sum(bytes_by_type(model).values()) == pytest.approx(dense + experts * 8 / 128 + 2 * 2048)
    tied = public("qwen2.5-0.5b").quantized("Q8_0")
    assert sum(bytes_by_type(tied).values()) == tied.weight_bytes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_K_M"])
def test_a_written_file_has_the_predicted_bytes_and_reads_back(tmp_path: Path, family: str, quantization: str) -> None:
    model = spec_of(family).quantized(quantization)
    metadata, path = random_metadata(model), tmp_path / "m.gguf"
    write_random_gguf(model, path, metadata)
    header = header_bytes(metadata, dict(model.tensors))
    assert path.stat().st_size == header + model.data_bytes
    read = from_gguf(path)
    for key in ("tensors", "types", "attention", "context", "experts", "experts_used", "vocab", "hidden", "gqa"):
        assert getattr(read, key) == getattr(model, key), key
    assert read.header_bytes == header
    assert memory(read, 2048) == memory(replace(model, header_bytes=header), 2048)


@pytest.mark.parametrize("kind", [*_SCALES, "F16", "BF16"])
def test_random_weights_are_small_numbers(tmp_path: Path, kind: str) -> None:
    """An infinity among them would make llama.cpp's work another than it is."""
    import gguf

    made = replace(spec_of("Llama"), tensors={"token_embd.weight": (600, 256)}, types={"token_embd.weight": kind})
    write_random_gguf(made, tmp_path / "m.gguf", {"general.architecture": "llama"})
    tensor = gguf.GGUFReader(tmp_path / "m.gguf").tensors[0]
    weights = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert weights.shape == (600, 256)
    assert np.abs(weights).mean() > 0.001 and np.abs(weights).max() < 10


def test_a_matrix_of_gate_and_up_is_as_wide_as_the_ffn() -> None:
    assert public("phi-3-mini").ffn == 8192
    assert public("llama-3.1-8b").ffn == 14336
    assert public("mixtral-8x7b").ffn == 2 * 14336


VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{family: (family, "Q8_0", {}) for family in FAMILIES},
    "Llama with biases": ("Llama", "Q4_K_M", {"attention_bias": True, "mlp_bias": True, "rope_scaling": LLAMA3}),
    "Phi3 with long rope": ("Phi3", "Q4_K_M", {"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 24}}),
    "Ministral 3": ("Mistral3", "Q8_0", {"text_config": {"model_type": "ministral3"}}),
    "Mistral Small 4": ("Mistral3", "Q8_0", {"text_config": MLA | {"model_type": "mistral4"}}),
    "Llama4 of experts alone": ("Llama4", "Q8_0", {"interleave_moe_layer_step": 1, "rope_scaling": LLAMA3}),
    "GptOss in MXFP4": ("GptOss", "MXFP4_MOE", {"hidden_size": 512}),
    "Mixtral in MXFP4": ("Mixtral", "MXFP4_MOE", {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_llama_cpp_runs_a_file_of_the_predicted_shape(tmp_path: Path, name: str) -> None:
    """It loads a file only where every tensor is there in the shape it expects, and no other; what it holds in memory
    is measured by benchmarks/plan.py."""
    pytest.importorskip("xllamacpp")
    from potstill.components.hardware.calibrate import serve_once

    family, quantization, changes = VARIANTS[name]
    made = spec_of(family, vocab_size=2000, **changes).quantized(quantization)
    assert ("MXFP4" in made.types.values()) == ("MXFP4" in name)
    write_random_gguf(made, tmp_path / "m.gguf")
    found = serve_once(tmp_path / "m.gguf", context=512, kv_type="f16", prompt=100, decode=2)
    assert found.peak_bytes > (tmp_path / "m.gguf").stat().st_size


@pytest.mark.parametrize("wrong", ["blk.3.attn_v.weight", "blk.0.attn_q.weight", "rope_freqs.weight"])
def test_llama_cpp_refuses_a_tensor_too_few_or_too_many(tmp_path: Path, wrong: str) -> None:
    """So that the test above could fail."""
    pytest.importorskip("xllamacpp")
    from potstill.components.hardware.calibrate import serve_once
    from potstill.core.errors import StepError

    made = spec_of("Phimoe", vocab_size=2000)
    tensors = {name: dims for name, dims in made.tensors.items() if name != wrong}
    if wrong not in made.tensors:
        tensors[wrong] = (32,)
    write_random_gguf(replace(made, tensors=tensors).quantized("F32"), tmp_path / "m.gguf")
    with pytest.raises(StepError, match="cannot serve"):
        serve_once(tmp_path / "m.gguf", context=512, kv_type="f16", prompt=8, decode=2)


def test_every_quantization_has_types_for_every_family() -> None:
    for family in FAMILIES:
        sizes = {q: spec_of(family).quantized(q).weight_bytes for q in QUANTIZATIONS}
        assert sizes["F32"] > sizes["F16"] > sizes["Q8_0"] > sizes["Q4_K_M"] >= sizes["Q4_K_S"] > sizes["Q2_K"]


# types by llama.cpp's quantizer, of tensors of a model: 8 experts, 4 query heads to a key's, one, 80 layers
TYPES: dict[tuple[str, str], dict[str, str]] = {
    ("mixtral-8x7b", "Q4_K_M"): {
        "token_embd": "Q4_K", "output": "Q6_K", "blk.0.attn_q": "Q4_K", "blk.4.attn_v": "Q8_0", "blk.0.attn_v": "Q8_0",
        "blk.0.attn_k": "Q8_0", "blk.31.attn_k": "Q8_0", "blk.0.attn_output": "Q5_K", "blk.0.ffn_gate_inp": "F32",
        "blk.0.ffn_down_exps": "Q6_K", "blk.4.ffn_down_exps": "Q4_K", "blk.6.ffn_down_exps": "Q6_K",
        "blk.26.ffn_down_exps": "Q4_K", "blk.28.ffn_down_exps": "Q6_K", "blk.0.ffn_up_exps": "Q4_K",
        "blk.0.ffn_gate_exps": "Q4_K", "blk.0.attn_norm": "F32",
    },
    ("mixtral-8x7b", "Q3_K_M"): {
        "blk.9.attn_v": "Q8_0", "blk.9.attn_k": "Q8_0", "blk.9.attn_output": "Q5_K", "blk.9.attn_q": "Q3_K",
        "blk.1.ffn_down_exps": "Q5_K", "blk.2.ffn_down_exps": "Q4_K", "blk.2.ffn_up_exps": "Q3_K",
    },
    ("mixtral-8x7b", "Q3_K_L"): {"blk.9.attn_output": "Q3_K", "blk.9.attn_v": "Q8_0", "blk.9.ffn_down_exps": "Q5_K"},
    ("mixtral-8x7b", "Q2_K"): {"blk.9.attn_output": "Q5_K", "blk.9.attn_k": "Q8_0", "blk.9.ffn_down_exps": "Q3_K"},
    ("mixtral-8x7b", "Q3_K_S"): {"blk.9.attn_output": "Q5_K", "blk.9.ffn_down_exps": "Q3_K"},
    ("mixtral-8x7b", "Q4_K_S"): {"blk.9.attn_output": "Q5_K", "blk.3.ffn_down_exps": "Q5_K", "blk.4.attn_q": "Q4_K"},
    ("mixtral-8x7b", "Q5_K_M"): {"blk.9.attn_output": "Q5_K", "blk.9.attn_v": "Q8_0", "blk.9.attn_q": "Q5_K"},
    ("mixtral-8x7b", "Q6_K"): {"blk.9.attn_output": "Q6_K", "blk.9.attn_v": "Q8_0", "blk.9.attn_k": "Q8_0"},
    ("mixtral-8x7b", "MXFP4_MOE"): {
        "token_embd": "Q8_0", "output": "Q8_0", "blk.0.attn_v": "Q8_0", "blk.0.attn_output": "Q8_0",
        "blk.0.ffn_gate_inp": "F32", "blk.0.ffn_up_exps": "MXFP4", "blk.0.ffn_gate_exps": "MXFP4",
        "blk.31.ffn_down_exps": "MXFP4",
    },
    # 16 experts, or 128, are no 8
    ("phi-3.5-moe", "Q4_K_M"): {
        "blk.4.attn_v": "Q4_K", "blk.0.attn_v": "Q6_K", "blk.0.attn_k": "Q4_K", "blk.0.attn_output": "Q4_K",
        "blk.4.ffn_down_exps": "Q4_K", "blk.0.ffn_down_exps": "Q6_K",
    },
    ("llama-3.1-8b", "Q3_K_L"): {
        "blk.0.ffn_down": "Q5_K", "blk.31.ffn_down": "Q5_K", "blk.9.attn_v": "Q5_K", "blk.9.attn_output": "Q5_K",
        "blk.9.attn_k": "Q3_K", "blk.9.ffn_up": "Q3_K", "output": "Q6_K", "token_embd": "Q3_K", "rope_freqs": "F32",
    },
    ("llama-3.1-8b", "Q3_K_M"): {
        "blk.0.ffn_down": "Q5_K", "blk.1.ffn_down": "Q5_K", "blk.2.ffn_down": "Q4_K", "blk.31.ffn_down": "Q4_K",
        "blk.1.attn_v": "Q5_K", "blk.2.attn_v": "Q4_K", "blk.9.attn_output": "Q4_K", "blk.9.ffn_gate": "Q3_K",
    },
    ("llama-3.1-8b", "Q3_K_S"): {"blk.0.ffn_down": "Q3_K", "blk.0.attn_v": "Q3_K", "blk.0.attn_output": "Q3_K"},
    ("llama-3.1-8b", "Q2_K"): {
        "blk.9.attn_v": "Q4_K", "blk.9.ffn_down": "Q3_K", "blk.9.attn_output": "Q3_K", "blk.9.attn_q": "Q2_K",
        "token_embd": "Q2_K", "output": "Q6_K",
    },
    ("llama-2-7b", "Q2_K"): {"blk.9.attn_v": "Q3_K"},
    ("llama-3.1-8b", "Q4_K_S"): {
        "blk.3.attn_v": "Q5_K", "blk.4.attn_v": "Q4_K", "blk.3.ffn_down": "Q5_K", "blk.4.ffn_down": "Q4_K",
        "blk.0.attn_output": "Q4_K",
    },
    ("llama-3.1-8b", "Q4_0"): {"blk.0.attn_v": "Q4_0", "blk.0.ffn_down": "Q4_0", "output": "Q6_K"},
    ("llama-3.1-70b", "Q4_K_M"): {
        "blk.0.attn_v": "Q6_K", "blk.10.attn_v": "Q5_K", "blk.12.attn_v": "Q6_K", "blk.69.attn_v": "Q6_K",
        "blk.68.attn_v": "Q5_K", "blk.10.attn_k": "Q4_K", "blk.10.ffn_down": "Q4_K", "blk.12.ffn_down": "Q6_K",
    },
    ("llama-3.1-70b", "Q4_K_S"): {"blk.0.attn_v": "Q5_K", "blk.79.attn_v": "Q5_K", "blk.79.ffn_down": "Q4_K"},
    ("llama-3.1-70b", "Q3_K_M"): {"blk.40.attn_v": "Q5_K", "blk.4.ffn_down": "Q5_K", "blk.5.ffn_down": "Q4_K"},
    ("llama-3.1-70b", "Q3_K_S"): {"blk.40.attn_v": "Q5_K", "blk.40.attn_k": "Q3_K"},
    ("llama-3.1-70b", "Q2_K"): {"blk.40.attn_v": "Q5_K"},
    # 29,568 channels are no multiple of 256
    ("qwen2.5-72b", "Q4_K_M"): {"blk.40.attn_v": "Q5_K", "blk.0.ffn_down": "Q8_0", "blk.40.ffn_down": "Q5_0"},
    ("qwen2.5-7b", "Q4_K_M"): {"blk.5.attn_v": "Q6_K", "blk.3.attn_v": "Q4_K", "blk.3.attn_q.bias": "F32"},
}  # fmt: skip


@pytest.mark.parametrize(("name", "quantization"), TYPES)
def test_types_are_llama_cpp_s(name: str, quantization: str) -> None:
    types = public(name).quantized(quantization).types
    wanted = TYPES[name, quantization]
    assert {short: types[short if short.endswith("bias") else f"{short}.weight"] for short in wanted} == wanted
