"""A converted file holds the checkpoint's weights and answers like it; what would not is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from potstill.components.conversion import weights as weights_module
from potstill.components.conversion.convert import convert_checkpoint
from potstill.core.errors import StepError

V = 1511
WHOLE_TOKEN = 70  # a letter of the byte alphabet that every tokenizer here starts with
PROMPT_LENGTHS = (1, 9, 200)

ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128},
    "llama3": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "original_max_position_embeddings": 64}
    | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied-wide-heads": ("Llama", {"tie_word_embeddings": True, "head_dim": 32}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3-wide-heads": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "llama-linear": ("Llama", {"rope_parameters": ROPES["linear"]}),
    "llama-yarn": ("Llama", {"rope_parameters": ROPES["yarn"]}),
    "llama-llama3": ("Llama", {"rope_parameters": ROPES["llama3"]}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 32, "rope_parameters": ROPES["yarn"]}),
}
# transformers' name of each tensor, written out: the converter has its own table
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
    **{f"attn_{x}_norm": f"self_attn.{x}_norm" for x in "qk"},
    **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
}


def read_back(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of a file as float32, under transformers' names."""
    out = {}
    for tensor in gguf.GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "rope_freqs":
            continue
        name = f"{NAMES[parts[-2]]}.{parts[-1]}"
        name = f"model.layers.{parts[1]}.{name}" if parts[0] == "blk" else name
        shape = tuple(int(n) for n in reversed(tensor.shape))
        out[name] = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    return out


def halves_together(array: np.ndarray[Any, Any], head_dim: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's order of rows: row 2j + s of a head was row s * head_dim / 2 + j."""
    rows = np.arange(len(array))
    head, row = rows // head_dim, rows % head_dim
    out = np.empty_like(array)
    out[head * head_dim + (row % 2) * (head_dim // 2) + row // 2] = array
    return out


def metadata(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def errors(model: Any, server: Any, lengths: tuple[int, ...] = PROMPT_LENGTHS) -> list[float]:
    """Largest difference in log-probability (nats) of likely tokens between transformers and llama.cpp, per length."""
    import torch

    ids = torch.randint(300, 1500, (max(lengths),), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1).numpy()
    out = []
    for n in lengths:
        got = server.log_probs(ids[:n], V, WHOLE_TOKEN)
        out.append(float(np.abs(got - expected[n - 1])[expected[n - 1] > -15].max()))
    return out


@pytest.mark.parametrize("case", CASES)
def test_weights_survive_and_answers_agree(
    case: str, tmp_path: Path, random_model: Any, make_checkpoint: Any, llama_cpp: Callable[[Path], Any]
) -> None:
    family, changes = CASES[case]
    model = random_model(family, **changes)
    out = tmp_path / "student.gguf"
    summary = convert_checkpoint(make_checkpoint(model), out, quantization="F32")

    state = {name: value.numpy() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    found = read_back(out)
    assert found.keys() == state.keys()
    head_dim = model.config.head_dim if hasattr(model.config, "head_dim") else 16
    for name, array in found.items():
        permuted = family in {"Llama", "Mistral"} and name.split(".")[-2] in {"q_proj", "k_proj"}
        np.testing.assert_array_equal(
            halves_together(array, head_dim) if permuted else array, state[name], err_msg=name
        )
    assert summary.n_parameters == sum(value.size for value in state.values())

    assert max(errors(model, llama_cpp(out))) < 0.02


def test_the_comparison_catches_rows_in_the_wrong_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, random_model: Any, make_checkpoint: Any, llama_cpp: Any
) -> None:
    """Planted fault: q and k as transformers has them."""
    monkeypatch.setattr(weights_module, "_rotated_heads", lambda name, parameters: None)
    model = random_model("Llama")
    convert_checkpoint(make_checkpoint(model), tmp_path / "wrong.gguf", quantization="F32")
    first, *later = errors(model, llama_cpp(tmp_path / "wrong.gguf"))
    assert first < 0.02  # at the first position there is nothing to rotate
    assert min(later) > 0.1


@pytest.mark.parametrize("kind", ROPES)
def test_the_comparison_catches_lost_rope_scaling(
    kind: str, tmp_path: Path, random_model: Any, make_checkpoint: Any, llama_cpp: Any
) -> None:
    """Planted fault: config.json without the scaling the weights were used with."""
    model = random_model("Llama", rope_parameters=ROPES[kind])
    folder = make_checkpoint(model)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": ROPES[kind]["rope_theta"]}
    (folder / "config.json").write_text(json.dumps(config))
    convert_checkpoint(folder, tmp_path / "wrong.gguf", quantization="F32")
    assert errors(model, llama_cpp(tmp_path / "wrong.gguf"))[-1] > 0.1


def test_older_files_spell_rope_another_way(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    model = random_model("Qwen2", rope_parameters=ROPES["yarn"])
    folder = make_checkpoint(model)
    convert_checkpoint(folder, tmp_path / "new.gguf", quantization="F32")
    config = json.loads((folder / "config.json").read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = {"type": scaling.pop("rope_type"), **scaling}
    (folder / "config.json").write_text(json.dumps(config))
    convert_checkpoint(folder, tmp_path / "old.gguf", quantization="F32")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


@pytest.mark.parametrize(
    ("quantization", "types", "file_type", "error"),
    [
        ("F16", {"F16", "F32"}, 1, 0.01),
        ("BF16", {"BF16", "F32"}, 32, 0.06),
        ("Q8_0", {"Q8_0", "F32"}, 7, 0.2),
        ("Q6_K", {"Q6_K", "F32"}, 18, 0.4),
        ("Q5_K_M", {"Q5_K", "Q6_K", "F32"}, 17, 0.7),
        ("Q4_K_M", {"Q4_K", "Q6_K", "F32"}, 15, 1.4),
        ("Q4_0", {"Q4_0", "Q6_K", "F32"}, 2, 1.6),
    ],
)
def test_quantized_files_load_and_answer_nearly_alike(
    quantization: str,
    types: set[str],
    file_type: int,
    error: float,
    tmp_path: Path,
    random_model: Any,
    make_checkpoint: Any,
    llama_cpp: Any,
) -> None:
    model = random_model(
        "Qwen2", hidden_size=256, intermediate_size=512, initializer_range=0.05, tie_word_embeddings=True
    )
    out = tmp_path / "student.gguf"
    summary = convert_checkpoint(make_checkpoint(model), out, quantization=quantization)
    assert set(summary.tensor_types) == types
    assert metadata(out)["general.file_type"] == file_type
    stored = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(out).tensors)
    assert summary.bits_per_weight == pytest.approx(8 * stored / summary.n_parameters)
    assert summary.file_bytes == out.stat().st_size
    found = errors(model, llama_cpp(out))
    assert error / 6 < max(found) < error  # the lower bound: it is no better type than it claims


def test_rows_of_odd_length_are_noted(tmp_path: Path, random_model: Any, make_checkpoint: Any, llama_cpp: Any) -> None:
    model = random_model("Llama", hidden_size=224, intermediate_size=172, head_dim=32, initializer_range=0.05)
    out = tmp_path / "student.gguf"
    summary = convert_checkpoint(make_checkpoint(model), out, quantization="Q4_K_M")
    assert set(summary.tensor_types) == {"Q5_0", "Q8_0", "F16", "F32"}
    assert any("rows of 128, 172, 224 weights, not a multiple of 256" in note for note in summary.notes)
    assert max(errors(model, llama_cpp(out))) < 1.0


def test_importance_reaches_the_quantizer(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    model = random_model("Llama", hidden_size=256, intermediate_size=512)
    folder = make_checkpoint(model)
    name = "blk.0.ffn_up.weight"
    importance = np.where(np.arange(256) < 16, 1000.0, 0.01).astype(np.float32)
    convert_checkpoint(folder, tmp_path / "plain.gguf", quantization="Q4_K_M")
    convert_checkpoint(folder, tmp_path / "aware.gguf", quantization="Q4_K_M", importance={name: importance})
    expected = model.state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()

    def loss(path: str) -> float:
        found = read_back(tmp_path / path)["model.layers.0.mlp.up_proj.weight"]
        return float(((found - expected) ** 2)[:, :16].mean())

    assert loss("aware.gguf") < 0.8 * loss("plain.gguf")


def test_shards_and_bfloat16(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    import torch

    model = random_model("Llama").to(torch.bfloat16)
    whole = make_checkpoint(model, name="student")
    shards = make_checkpoint(model, name="sharded")
    (shards / "model.safetensors").unlink()
    model.save_pretrained(shards, max_shard_size="200KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    for folder in (whole, shards):
        convert_checkpoint(
            folder, tmp_path / f"{folder.name}.gguf", quantization="BF16", metadata={"general.name": "x"}
        )
    assert (tmp_path / "sharded.gguf").read_bytes() == (tmp_path / "student.gguf").read_bytes()
    expected = model.state_dict()["model.layers.1.mlp.up_proj.weight"].float().numpy()
    np.testing.assert_array_equal(read_back(tmp_path / "student.gguf")["model.layers.1.mlp.up_proj.weight"], expected)


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q4_K_M"])
def test_blocks_of_rows_change_nothing(
    quantization: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, random_model: Any, make_checkpoint: Any
) -> None:
    folder = make_checkpoint(random_model("Llama", attention_bias=True))
    convert_checkpoint(folder, tmp_path / "whole.gguf", quantization=quantization)
    monkeypatch.setattr(weights_module, "_BLOCK_WEIGHTS", 5 * 64)
    convert_checkpoint(folder, tmp_path / "blocks.gguf", quantization=quantization)
    assert (tmp_path / "blocks.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_metadata(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    folder = make_checkpoint(random_model("Qwen3", head_dim=32, num_key_value_heads=1))
    out = tmp_path / "sub" / "student.gguf"
    given = {
        "general.name": "kitchen",
        "general.license": "apache-2.0",
        "general.base_model.0.name": "a",
        "general.base_model.0.repo_url": "https://a.example/b",
        "general.base_model.1.name": "b",
    }
    convert_checkpoint(folder, out, metadata=given)
    found = metadata(out)
    assert {key: found[key] for key in given} == given
    assert found["general.base_model.count"] == 2
    assert found["general.architecture"] == "qwen3"
    assert found["general.quantization_version"] == 2
    numbers = {
        "block_count": 2,
        "context_length": 512,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.freq_base": 10000.0,
        "vocab_size": V,
    }
    assert {key: found[f"qwen3.{key}"] for key in numbers} == numbers
    with pytest.raises(ValueError, match=r"general\.file_type"):
        convert_checkpoint(folder, out, metadata={"general.file_type": "1"})
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.pre"):
        convert_checkpoint(folder, out, metadata={"tokenizer.ggml.pre": "qwen2"})


def test_nothing_half_written(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    import torch

    model = random_model("Llama")
    out = tmp_path / "student.gguf"
    convert_checkpoint(make_checkpoint(model), out)
    before = out.read_bytes()
    with torch.no_grad():
        model.lm_head.weight[5, 5] = float("nan")  # the last tensor: all others are on disk by then
    with pytest.raises(StepError, match=r"lm_head\.weight: the weights contain a NaN"):
        convert_checkpoint(make_checkpoint(model), out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["student.gguf"]


def test_weights_too_large_for_f16_are_refused(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    import torch

    model = random_model("Llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    folder = make_checkpoint(model)
    with pytest.raises(StepError, match=r"up_proj\.weight: the largest weight, 1e\+05, does not fit F16"):
        convert_checkpoint(folder, tmp_path / "student.gguf")
    convert_checkpoint(folder, tmp_path / "student.gguf", quantization="BF16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, r"GPT2LMHeadModel cannot be exported\. Supported: LlamaForCausalLM"),
        ({"architectures": None}, r"\(none named\) cannot be exported"),
        (
            {"rope_parameters": ROPES["yarn"] | {"rope_type": "dynamic"}},
            "rope type 'dynamic' cannot be exported for llama",
        ),
        ({"rope_parameters": ROPES["yarn"] | {"beta_fast": 16.0}}, "yarn with its own beta_fast"),
        ({"rope_parameters": ROPES["yarn"] | {"attention_factor": 1.5}}, "yarn with its own attention_factor"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not SiLU"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ({"num_hidden_layers": 3}, r"lacks 9 tensors \(blk\.2\.attn_norm\.weight first"),
        ({"num_hidden_layers": 1}, r"model\.layers\.1\..* but config\.json implies no such tensor"),
        ({"intermediate_size": 112}, r"down_proj\.weight has shape \(64, 96\), but config\.json implies \(64, 112\)"),
        ({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}, "slides over 64"),
    ],
)
def test_what_would_answer_differently_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, random_model: Any, make_checkpoint: Any
) -> None:
    folder = make_checkpoint(random_model("Llama"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(StepError, match=message):
        convert_checkpoint(folder, tmp_path / "student.gguf")
    assert not (tmp_path / "student.gguf").exists()


def test_qwen_features_that_llama_cpp_lacks(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    biased = make_checkpoint(random_model("Qwen3", head_dim=32, attention_bias=True), name="biased")
    with pytest.raises(StepError, match="attention_bias is set"):
        convert_checkpoint(biased, tmp_path / "student.gguf")
    llama3 = make_checkpoint(random_model("Qwen2", rope_parameters=ROPES["llama3"]), name="llama3")
    with pytest.raises(StepError, match="rope type 'llama3' cannot be exported for qwen2"):
        convert_checkpoint(llama3, tmp_path / "student.gguf")
    sliding = random_model("Qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1)
    with pytest.raises(StepError, match="slides over 64 tokens"):
        convert_checkpoint(make_checkpoint(sliding, name="sliding"), tmp_path / "student.gguf")


def test_folders_that_are_not_whole(tmp_path: Path, random_model: Any, make_checkpoint: Any) -> None:
    folder = make_checkpoint(random_model("Llama"))
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(StepError, match=r"model\.safetensors: not a whole safetensors file"):
        convert_checkpoint(folder, tmp_path / "student.gguf")
    weights.unlink()
    with pytest.raises(StepError, match="save_pretrained, which writes safetensors"):
        convert_checkpoint(folder, tmp_path / "student.gguf")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(StepError, match="merge_and_unload"):
        convert_checkpoint(folder, tmp_path / "student.gguf")
    weights.write_bytes(data)
    (folder / "config.json").unlink()
    with pytest.raises(StepError, match=r"config\.json: no such file"):
        convert_checkpoint(folder, tmp_path / "student.gguf")


def test_a_real_model_answers_alike(tmp_path: Path, shared_data: Path, llama_cpp: Any) -> None:
    """stories260K: a trained Llama with a SentencePiece tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("stories260K is not there")
    out = tmp_path / "stories.gguf"
    summary = convert_checkpoint(folder, out, quantization="F32")
    assert (summary.tokenizer_model, summary.n_parameters, summary.notes) == ("llama", 260032, ())
    model, server = AutoModelForCausalLM.from_pretrained(folder).eval(), llama_cpp(out)
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert server.tokenize(text) == ids
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1).numpy()
    got = np.stack([server.log_probs(ids[: n + 1], 512, 403) for n in range(len(ids))])
    assert (got.argmax(-1) == expected.argmax(-1)).all()
    assert np.abs(got - expected)[expected > -15].max() < 0.03
