"""GGUF files of many architectures: what the KV cache keeps, and which were compared with llama.cpp."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fixtures import CONFIGS
from potstill.cli.main import main
from potstill.components.hardware.memory import compute_bytes, indivisible_head, kv_bytes, memory
from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf
from potstill.components.hardware.speed import bytes_by_type, operations_by_type
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError

pytest.importorskip("gguf")

NARROW: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 32, "intermediate_size": 32,
    "num_attention_heads": 1, "max_position_embeddings": 131072,
}  # fmt: skip


def write(path: Path, architecture: str, layers: int, **keys: Any) -> Path:
    """A file with tiny tensors and the keys of a real model (a dot is written __), which alone decide on the cache."""
    model = from_config(NARROW | {"num_hidden_layers": layers}).quantized("F16")
    model = replace(model, architecture=architecture)
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    write_random_gguf(model, path, random_metadata(model) | named)
    return path


def gemma4(layers: int, every: int, kv: tuple[int, int], heads: int, window: int, shared: int) -> dict[str, Any]:
    slides = [(i + 1) % every != 0 for i in range(layers - 1)] + [False]
    return {
        "attention__head_count": heads, "attention__head_count_kv": [kv[0] if s else kv[1] for s in slides],
        "attention__key_length": 512, "attention__value_length": 512, "attention__key_length_swa": 256,
        "attention__value_length_swa": 256, "attention__sliding_window": window,
        "attention__sliding_window_pattern": slides, "attention__shared_kv_layers": shared,
    }  # fmt: skip


def plain(heads: int, kv_heads: int, head: int, window: int = 0) -> dict[str, Any]:
    return {
        "attention__head_count": heads, "attention__head_count_kv": kv_heads, "attention__key_length": head,
        "attention__value_length": head, "attention__sliding_window": window,
    }  # fmt: skip


LATENT = plain(128, 1, 576) | {
    "attention__value_length": 512, "attention__key_length_mla": 192, "attention__value_length_mla": 128,
    "attention__indexer__key_length": 128,
}  # fmt: skip
NARROWER = {"attention__key_length": 256, "attention__value_length": 256}
CACHES: list[tuple[str, int, dict[str, Any], dict[int, float]]] = [
    ("gemma4", 35, gemma4(35, 5, (1, 1), 8, 512, shared=20), {4096: 36, 32768: 204}),
    ("gemma4", 42, gemma4(42, 6, (2, 2), 8, 512, shared=18), {4096: 104, 32768: 552}),
    ("gemma4", 60, gemma4(60, 6, (16, 4), 32, 1024, shared=0), {4096: 1520, 32768: 3760}),
    ("exaone4", 64, plain(40, 8, 128, window=4096), {4096: 1024, 32768: 2912}),
    ("smallthinker", 52, plain(28, 4, 128, window=4096), {4096: 416, 16384: 767}),
    ("deepseek32", 61, LATENT, {4096: 335, 32768: 2684}),
    ("olmo2", 32, plain(32, 32, 128, window=4096), {4096: 2048, 32768: 5824}),
    ("minimax-m2", 62, plain(48, 8, 128), {4096: 992, 32768: 7936}),
    ("laguna", 40, plain(48, 8, 128, window=512), {4096: 280, 32768: 1400}),
    ("glm4moe", 47, plain(96, 8, 128) | {"nextn_predict_layers": 1}, {4096: 736, 32768: 5888}),
    ("gemma3n", 35, gemma4(35, 5, (2, 2), 8, 512, shared=15) | NARROWER, {4096: 64, 32768: 288}),
    ("cohere2", 32, plain(32, 8, 128, window=4096), {4096: 512, 32768: 1456}),
]
"""Architecture, layers, keys, and the KV cache in MiB by context, as llama.cpp's own memory fit printed it (build
11549, rounded down) for headers with these keys: Gemma 4 E2B, E4B and 31B, EXAONE 4 32B, SmallThinker 21B, DeepSeek
V3.2, Olmo 3 7B, MiniMax M2, Laguna XS, GLM 4.5 Air, Gemma 3n E4B, Command R7B."""


@pytest.mark.parametrize(("architecture", "layers", "keys", "sizes"), CACHES)
def test_caches_are_those_of_llama_cpp(
    tmp_path: Path, architecture: str, layers: int, keys: dict[str, Any], sizes: dict[int, float]
) -> None:
    model = from_gguf(write(tmp_path / "m.gguf", architecture, layers, **keys))
    assert {context: kv_bytes(model, context) // 2**20 for context in sizes} == sizes


def test_an_indexer_counts_among_the_sizes_that_a_cache_type_must_divide(tmp_path: Path) -> None:
    model = from_gguf(write(tmp_path / "m.gguf", "deepseek32", 2, **LATENT))
    assert model.kv_elements == 2 * (576 + 128)
    assert indivisible_head(model, "q8_0") is None
    odd = from_gguf(write(tmp_path / "m.gguf", "deepseek32", 2, **LATENT | {"attention__indexer__key_length": 100}))
    assert indivisible_head(odd, "q8_0") == 100


@pytest.mark.parametrize("shared", [2, "all"])
def test_shared_layers_must_leave_one_with_a_cache(tmp_path: Path, shared: Any) -> None:
    path = write(tmp_path / "m.gguf", "gemma4", 2, attention__shared_kv_layers=shared)
    with pytest.raises(UsageError, match=r"gemma4\.attention\.shared_kv_layers is .*a whole number from 0 to 1"):
        from_gguf(path)


@pytest.mark.parametrize("name", ["", "\x1b[31mllama", "x" * 61])
def test_a_file_that_names_no_architecture_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "m.gguf", name, 2)
    with pytest.raises(UsageError, match="no named architecture"):
        from_gguf(path)


WARNING = "is counted as a plain decoder, not checked"


@pytest.mark.parametrize(("architecture", "warned"), [("llama", False), ("gemma4", False), ("stablelm", True)])
def test_fit_warns_of_an_architecture_that_was_not_checked(tmp_path: Path, architecture: str, warned: bool) -> None:
    path = write(tmp_path / "m.gguf", architecture, 2)
    for devices in (["--device", "RTX 3060"], ["--device", "RTX 3060", "--device", "RTX 4090"]):
        shown = CliRunner().invoke(main, ["fit", str(path), *devices])
        assert shown.exit_code == 0
        assert (WARNING in " ".join(shown.output.split())) == warned
    report = json.loads(CliRunner().invoke(main, ["fit", str(path), "--device", "RTX 3060", "--json"]).output)
    assert [WARNING in warning for warning in report["warnings"]] == [True] * warned


def test_the_first_layer_of_each_run_of_lagunas_attends_to_everything(tmp_path: Path) -> None:
    model = from_gguf(write(tmp_path / "m.gguf", "laguna", 8, **plain(4, 4, 8, window=512)))
    assert [layer.window for layer in model.attention] == [None, 512, 512, 512] * 2


@pytest.mark.parametrize("backend", ["cuda", "x86"])
def test_a_block_that_predicts_further_tokens_needs_no_memory(tmp_path: Path, backend: str) -> None:
    """llama.cpp ignores the tensors of GLM 4.5's last block; they are in the file all the same."""
    keys = plain(4, 4, 8)
    whole, less = (
        from_gguf(write(tmp_path / f"{last}.gguf", "glm4moe", 3, **keys | {"nextn_predict_layers": last}))
        for last in (0, 1)
    )
    block = sum(size for name, size in whole.tensor_bytes().items() if name.startswith("blk.2."))
    held, kept = (memory(model, 256, backend=backend) for model in (whole, less))
    cache = kv_bytes(whole, 256) - kv_bytes(less, 256)
    assert block > 0 and cache > 0 and abs(held.weights - kept.weights) < 100
    assert held.needed - kept.needed == pytest.approx(block + cache, abs=100)


@pytest.mark.parametrize(
    ("hidden", "width", "layers", "context", "published"),
    [
        (1536, 12288, 35, 4096, 127),
        (1536, 6144, 35, 4096, 79),
        (2560, 10240, 42, 32768, 140),
        (2048, 16384, 35, 4096, 160),
    ],
)
def test_a_compute_buffer_holds_the_embeddings_of_every_layer(
    hidden: int, width: int, layers: int, context: int, published: float
) -> None:
    """MiB by llama.cpp's own memory fit: Gemma 4 E2B, the same with a narrow FFN, Gemma 4 E4B, Gemma 3n E4B."""
    size = {"hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers}
    model = from_config(NARROW | size)
    attention = [replace(layer, window=512 if i else None) for i, layer in enumerate(model.attention)]
    rows = {"per_layer_token_embd.weight": (300, 256 * layers)}
    model = replace(model, attention=tuple(attention), tensors=dict(model.tensors) | rows)
    assert compute_bytes(model, context) / 2**20 == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(("layers", "context", "published"), [(61, 4096, 658), (61, 32768, 826), (5, 8192, 442)])
def test_a_compute_buffer_holds_what_an_indexer_chooses(
    tmp_path: Path, layers: int, context: int, published: float
) -> None:
    """MiB by llama.cpp's own memory fit of DeepSeek V3.2, and of a part of its layers."""
    keys = LATENT | {"attention__indexer__top_k": 2048}
    read = from_gguf(write(tmp_path / "m.gguf", "deepseek32", layers, **keys))
    model = replace(load_spec(str(CONFIGS / "deepseek-v3.json")), attention=read.attention, vocab=1024)
    assert compute_bytes(model, context) / 2**20 == pytest.approx(published, rel=0.1)


def test_a_token_looks_up_one_row_of_the_embedding_of_every_layer() -> None:
    """Gemma 3n and 4 hold a matrix of vocabulary x (layers x 256); a token reads one row of it."""
    plain_model = from_config(NARROW | {"num_hidden_layers": 2})
    rows = {"per_layer_token_embd.weight": (300, 2 * 256)}
    with_rows = replace(plain_model, tensors=dict(plain_model.tensors) | rows)

    def read(model: ModelSpec) -> tuple[float, float, float]:
        made = model.quantized("F16")
        prompts = (operations_by_type(made, prompt=prompt)["F16"] for prompt in (True, False))
        return bytes_by_type(made)["F16"], *prompts

    more = [b - a for a, b in zip(read(plain_model), read(with_rows), strict=True)]
    assert more == [2 * 2 * 256] * 3
