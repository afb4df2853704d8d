"""The arithmetic against what it predicts: models of transformers, files of the exporter, a running llama.cpp."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import make_tokenizer
from potstill.components.hardware.memory import memory
from potstill.components.models.arithmetic import (
    ModelShape,
    checkpoint_bytes,
    gguf_header_bytes,
    kv_cache_bytes,
    parameter_count,
    tensors,
    training_memory_bytes,
)
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.safetensors import safetensors_parameters
from potstill.components.training.lora import add_lora
from potstill.core.errors import RecipeError
from potstill.core.recipe.recipe import Shape

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
    shape = ModelShape.from_config(saved_config(model, tmp_path))
    assert tensors(shape) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert parameter_count(shape) == model.num_parameters() == safetensors_parameters(tmp_path)


@pytest.mark.parametrize(("family", "absent"), [("Llama", "num_key_value_heads"), ("Qwen3", "head_dim")])
def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path, family: str, absent: str) -> None:
    import transformers

    config = saved_config(build(family), tmp_path)
    del config[absent]
    theirs = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config").from_dict(config))
    assert parameter_count(ModelShape.from_config(config)) == theirs.num_parameters()


def test_recipe_shape_is_the_model_made_from_it(tmp_path: Path) -> None:
    from potstill.components.chat.format import load_chat
    from potstill.components.training.students import from_scratch

    chat = load_chat(make_tokenizer(tmp_path / "t"))
    sizes = {"layers": 2, "hidden": 48, "ffn": 80, "heads": 4, "kv_heads": 2, "head_dim": 16}
    recipe_shape = Shape(architecture="qwen3", tied=False, **sizes)
    model = from_scratch(recipe_shape, chat, 64, 0)
    shape = ModelShape.from_recipe_shape(recipe_shape, chat.vocab_size, 64)
    assert tensors(shape) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shape.context == model.config.max_position_embeddings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BitNetForCausalLM"]}, "BitNetForCausalLM is not one of"),
        ({"architectures": None}, "none named"),
        ({"hidden_size": None}, "hidden_size as a positive integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers as a positive integer"),
    ],
)
def test_configs_that_do_not_say_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape.from_config(QWEN3_06B | change)


def test_parameters_of_public_models() -> None:
    # the counts on the models' own pages
    assert parameter_count(ModelShape.from_config(LLAMA_31_8B)) == 8_030_261_248
    assert parameter_count(ModelShape.from_config(QWEN25_05B)) == 494_032_768
    assert parameter_count(ModelShape.from_config(QWEN3_06B)) == 596_049_920


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
    assert model.parameters == parameter_count(ModelShape.from_config(config))
    assert model.bits_per_weight == pytest.approx(bits, abs=tolerance)


def test_kv_cache_takes_head_dim_as_given() -> None:
    # 28 layers x 2 x 8 heads x 128 x 2 bytes; hidden / heads would say half
    assert kv_cache_bytes(ModelShape.from_config(QWEN3_06B), 1) == 114_688
    assert kv_cache_bytes(ModelShape.from_config(QWEN3_06B), 4096, 34 / 32) == 4096 * 114_688 * 17 // 32
    assert kv_cache_bytes(ModelShape.from_config(LLAMA_31_8B), 131072) == 16 * 2**30


def test_a_checkpoint_is_weights_and_two_moments() -> None:
    assert checkpoint_bytes(1000) == 12_000


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
    header = gguf_header_bytes(ModelShape.from_config(config), tokens, merges, template)
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
    assert kv_cache_bytes(ModelShape.from_config(config), 8192) > 0.25 * peak
    assert memory(from_gguf(tmp_path / "s.gguf"), 8000).total == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize(("family", "bf16"), [("Llama", False), ("Qwen3", False), ("Llama", True)])
def test_activations_are_what_autograd_keeps(family: str, bf16: bool) -> None:
    import torch

    layers, tokens, width = 6, 512, 128
    model = build(family, hidden_size=128, intermediate_size=352, num_hidden_layers=layers, head_dim=32).train()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    mask = torch.ones(tokens // width, 1, width, width, dtype=torch.bool).tril()
    ids = torch.zeros(tokens // width, width, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", enabled=bf16):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    measured = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in parameters)
    shape = ModelShape.from_recipe_shape(
        Shape(architecture=family.lower(), layers=layers, hidden=128, ffn=352, heads=4, kv_heads=2, head_dim=32),  # type: ignore[arg-type]
        SIZES["vocab_size"],
    )
    predicted = training_memory_bytes(shape, tokens, width=width, bf16=bf16)["activations"] * layers / (layers + 1)
    assert predicted == pytest.approx(measured, rel=0.1)


def test_training_holds_weights_gradients_and_moments() -> None:
    import torch

    model = build("Llama")
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    held = sum(p.nbytes + p.grad.nbytes for p in model.parameters()) + moments
    shape = ModelShape.from_config(model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    alone = training_memory_bytes(shape, 64)
    taught = training_memory_bytes(shape, 64, teacher_bytes=20, teacher_hidden=64)
    assert alone["student"] == held
    assert (alone["teacher"], taught["teacher"]) == (0, 20)
    assert taught["logits"] > alone["logits"]
    assert training_memory_bytes(shape, 64, recompute=True)["activations"] < alone["activations"]
    add_lora(model, 4, seed=0)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.nbytes for p in model.parameters())
    assert training_memory_bytes(shape, 64, lora_rank=4)["student"] == weights + 12 * adapters


def test_shards_are_counted_and_missing_or_cut_ones_told(tmp_path: Path) -> None:
    model = build("Llama")
    model.save_pretrained(tmp_path, max_shard_size="150KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert safetensors_parameters(tmp_path) == model.num_parameters()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(RecipeError, match="not a whole safetensors file"):
        safetensors_parameters(tmp_path)
    shards[1].unlink()
    with pytest.raises(RecipeError, match=rf"{shards[1].name}: no such file"):
        safetensors_parameters(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(RecipeError, match="not an index"):
        safetensors_parameters(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 64, b"version https://git-lfs.github.com/spec/v1\n"])
def test_files_that_are_no_safetensors_are_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        safetensors_parameters(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(RecipeError, match="not a whole safetensors file"):
        safetensors_parameters(tmp_path)
