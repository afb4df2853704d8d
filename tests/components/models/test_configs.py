"""Specs of config.json files against models of transformers, files of the exporter and a running llama.cpp."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import make_tokenizer
from potstill.components.hardware.memory import memory
from potstill.components.models.configs import from_config
from potstill.components.models.derived import pruned_config, shape_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.header_size import estimated_header_bytes
from potstill.components.models.safetensors import safetensors_parameters
from potstill.components.models.spec import ModelSpec
from potstill.core.recipe import Shape
from workshop import transformers_name

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA_31_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
}
QWEN25_05B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
QWEN3_06B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


def build(family: str, **changes: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    return getattr(transformers, f"{family}ForCausalLM")(config)


def named(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Dimensions of a spec's tensors, by their names in transformers."""
    return {transformers_name(name): dims for name, dims in spec.tensors.items()}


def saved_config(model: Any, folder: Path) -> dict[str, Any]:
    """config.json as save_pretrained writes it."""
    model.save_pretrained(folder)
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"head_dim": 24}),
        ("Llama", {"num_key_value_heads": None}),
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Mistral", {}),
        ("Qwen2", {}),
        ("Qwen3", {}),
        ("Qwen3", {"head_dim": 16, "attention_bias": True}),
    ],
)
def test_tensors_are_those_of_the_model(tmp_path: Path, family: str, changes: dict[str, Any], tied: bool) -> None:
    model = build(family, **changes, tie_word_embeddings=tied)
    spec = from_config(saved_config(model, tmp_path))
    assert named(spec) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert spec.parameters == model.num_parameters() == safetensors_parameters(tmp_path)


@pytest.mark.parametrize(("family", "absent"), [("Llama", "num_key_value_heads"), ("Qwen3", "head_dim")])
def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path, family: str, absent: str) -> None:
    import transformers

    config = saved_config(build(family), tmp_path)
    del config[absent]
    theirs = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config").from_dict(config))
    assert from_config(config).parameters == theirs.num_parameters()


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_key_value_heads_of_null_are_as_many_as_heads(tmp_path: Path, family: str) -> None:
    config = saved_config(build(family), tmp_path) | {"num_key_value_heads": None}
    assert from_config(config).attention[0].kv_heads == 4


def test_recipe_shape_is_the_model_made_from_it(tmp_path: Path) -> None:
    from potstill.components.chat.format import load_chat
    from potstill.components.training.students import from_scratch

    chat = load_chat(make_tokenizer(tmp_path / "t"))
    sizes = {"layers": 2, "hidden": 48, "ffn": 80, "heads": 4, "kv_heads": 2, "head_dim": 16}
    recipe_shape = Shape(architecture="qwen3", tied=False, **sizes)
    model = from_scratch(recipe_shape, chat, 64, 0)
    spec = from_config(shape_config(recipe_shape, chat.vocab_size, 64))
    assert named(spec) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert spec.context == model.config.max_position_embeddings


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_pruned_config_is_that_of_the_pruned_model(tmp_path: Path, family: str) -> None:
    from potstill.components.chat.format import Example
    from potstill.components.training.pruning import cut_width, measure_importance
    from potstill.components.training.students import from_teacher_layers

    model = build(family)
    config = pruned_config(saved_config(model, tmp_path / "teacher"), layers=2, hidden=32, ffn=48, kv_heads=1)
    cut = from_teacher_layers(model, 2)
    importance = measure_importance(cut, [Example(tuple(range(3, 20)), 4, True)])
    student = cut_width(cut, importance, hidden=32, ffn=48, kv_heads=1)
    made = from_config(saved_config(student, tmp_path / "student"))
    assert named(from_config(config)) == named(made) == {n: tuple(p.shape) for n, p in student.named_parameters()}


def test_parameters_of_public_models() -> None:
    # the counts on the models' own pages
    assert from_config(LLAMA_31_8B).parameters == 8_030_261_248
    assert from_config(QWEN25_05B).parameters == 494_032_768
    assert from_config(QWEN3_06B).parameters == 596_049_920


@pytest.mark.parametrize(
    ("config", "quantization", "bits", "tolerance"),
    [
        # llama.cpp's own table of llama-quantize on Llama-3.1-8B: weights alone, without metadata
        (LLAMA_31_8B, "Q4_K_M", 4.8944, 1e-4),
        (LLAMA_31_8B, "Q5_K_M", 5.7036, 1e-4),
        (LLAMA_31_8B, "Q6_K", 6.5633, 1e-4),
        (LLAMA_31_8B, "Q8_0", 8.5008, 1e-4),
        # 896 is no multiple of 256: the fallbacks cost one and a half bits
        (QWEN25_05B, "Q4_K_M", 6.35, 0.005),
        (QWEN3_06B, "Q4_K_M", 5.24, 0.005),
    ],
)
def test_published_bits_per_weight(config: dict[str, Any], quantization: str, bits: float, tolerance: float) -> None:
    model = from_config(config).quantized(quantization)
    assert model.bits_per_weight == pytest.approx(bits, abs=tolerance)


def test_kv_cache_takes_head_dim_as_given() -> None:
    # 28 layers x 2 x 8 heads x 128 x 2 bytes; hidden / heads would say half
    assert 2 * from_config(QWEN3_06B).kv_elements == 114_688
    assert 2 * 131072 * from_config(LLAMA_31_8B).kv_elements == 16 * 2**30


FAMILIES = [("Llama", True, "Q8_0"), ("Qwen2", False, "Q4_K_M"), ("Qwen3", True, "Q5_K_M"), ("Llama", False, "F16")]


@pytest.mark.parametrize(("family", "tied", "quantization"), FAMILIES)
def test_exported_file_is_as_large_as_predicted(tmp_path: Path, family: str, tied: bool, quantization: str) -> None:
    from potstill.components.chat.format import load_chat
    from potstill.components.conversion.convert import convert_checkpoint

    folder = make_tokenizer(tmp_path / "student")
    # rows of 256 and of 160 weights, so that types and their fallbacks both appear; of 11 layers another choice of
    # those that keep six bits would be another number
    sizes = {"vocab_size": 400, "hidden_size": 256, "intermediate_size": 160, "num_hidden_layers": 11}
    config = saved_config(build(family, **sizes, tie_word_embeddings=tied), folder)
    model = from_config(config).quantized(quantization)
    written = convert_checkpoint(folder, tmp_path / "s.gguf", quantization=quantization, threads=1)
    types = list(model.types.values())
    assert {kind: types.count(kind) for kind in set(types)} == written.tensor_types
    assert model.bits_per_weight == written.bits_per_weight
    tokenizer = load_chat(folder).tokenizer
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    template, tokens = (folder / "chat_template.jinja").read_text(), tokenizer.get_vocab(with_added_tokens=True)
    header = estimated_header_bytes(model, tokens, merges, template)
    assert model.weight_bytes + header == pytest.approx(written.file_bytes, abs=300)


@pytest.mark.skipif(sys.platform != "linux", reason="the process itself was measured on Linux")
def test_resident_memory_is_as_large_as_predicted(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.runtimes.gguf import GGUFServer

    folder = make_tokenizer(tmp_path / "student")
    sizes = {"vocab_size": 8000, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}
    sizes |= {"num_key_value_heads": 4, "max_position_embeddings": 8192}
    config = saved_config(build("Llama", **sizes), folder)
    convert_checkpoint(folder, tmp_path / "s.gguf", quantization="Q8_0", threads=1)
    with GGUFServer(tmp_path / "s.gguf", context=8000, threads=1) as server:
        server.post("/completion", {"prompt": server.tokenize("on the hall " * 200)[:600], "n_predict": 4})
        peak = server.peak_rss_mb() * 1e6
    assert 2 * 8192 * from_config(config).kv_elements > 0.25 * peak
    assert memory(from_gguf(tmp_path / "s.gguf"), 8000).total == pytest.approx(peak, rel=0.15)
