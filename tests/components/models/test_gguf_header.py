"""Headers of GGUF files: whole, damaged, at odds with themselves, of other kinds of models, and in several files."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from potstill.cli.main import main
from potstill.components.hardware.memory import memory
from potstill.components.hardware.random_gguf import random_metadata, write_random_gguf
from potstill.components.models.configs import from_config
from potstill.components.models.gguf_header import from_gguf
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError

pytest.importorskip("gguf")

SMALL: dict[str, Any] = {
    "vocab_size": 600, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip


def spec_of(kind: str = "LlamaForCausalLM", **changes: Any) -> ModelSpec:
    return from_config(SMALL | {"architectures": [kind]} | changes).quantized("Q8_0")


def mixtral() -> ModelSpec:
    return spec_of("MixtralForCausalLM")


def write(path: Path, model: ModelSpec, **keys: Any) -> Path:
    """The model's file; `keys` are of its architecture, None leaves one out (a dot is written __)."""
    metadata = random_metadata(model)
    for key, value in keys.items():
        name = key.replace("__", ".")
        name = name if name.startswith("general.") else f"{model.architecture}.{name}"
        metadata[name] = value
    write_random_gguf(model, path, {key: value for key, value in metadata.items() if value is not None})
    return path


def without(model: ModelSpec, *starts: str) -> ModelSpec:
    return replace(model, tensors={k: v for k, v in model.tensors.items() if not k.startswith(starts)})


def renamed(model: ModelSpec, old: str, new: str) -> ModelSpec:
    tensors = {name.replace(old, new): dims for name, dims in model.tensors.items()}
    return replace(model, tensors=tensors, types={name.replace(old, new): kind for name, kind in model.types.items()})


@pytest.mark.parametrize("cut", [0, 3, 10, 40, 300, 9000, -1])
def test_a_file_cut_short_is_reported(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "m.gguf", spec_of())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UsageError, match=r"m\.gguf: .*(cut short|not a GGUF|cannot be read)"):
        from_gguf(path)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"block_count": 0}, r"llama\.block_count is 0, but must be a whole number from 1 to 1,000"),
    ({"block_count": 2**31}, r"llama\.block_count is 2147483648, but must be a whole number from 1"),
    ({"block_count": 5}, r"llama\.block_count is 5, but must be the number of its blocks.*blk\.4 has no tensors"),
    ({"block_count": 3}, r"llama\.block_count is 3, but must be the number of its blocks.*blk\.3 has tensors"),
    ({"block_count": None}, r"llama\.block_count is missing"),
    ({"block_count": "four"}, r"llama\.block_count is 'four', but must be a whole number"),
    ({"attention__head_count": None}, r"llama\.attention\.head_count is missing"),
    ({"attention__head_count": 0}, r"llama\.attention\.head_count is 0"),
    ({"attention__head_count": [4, 4]}, r"head_count is \[4, 4\], but must be one whole number for each of 4 layers"),
    ({"attention__head_count": [0, 0, 0, 0]}, r"head_count is \[0, 0, 0, 0\], but must be one whole number for each"),
    ({"attention__head_count_kv": 0}, r"llama\.attention\.head_count_kv is 0"),
    ({"attention__head_count_kv": 3}, r"head_count_kv is 3, but must be a number that divides the query heads \(4\)"),
    ({"attention__key_length": 0}, r"llama\.attention\.key_length is 0"),
    ({"embedding_length": 0}, r"llama\.embedding_length is 0"),
    ({"embedding_length": 128}, r"embedding_length is 128, but must be the row of token_embd\.weight, which is 600 x"),
    ({"context_length": "long"}, r"llama\.context_length is 'long'"),
    ({"nextn_predict_layers": 4}, r"llama\.nextn_predict_layers is 4, but must be a whole number from 0 to 3"),
    ({"attention__sliding_window_pattern": [True]}, r"sliding_window_pattern is \[True\], but must be one value for"),
    ({"general__alignment": 0}, r"general\.alignment must be a positive integer, found 0"),
    ({"attention__causal": False}, "an encoder; only models that generate text are supported"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_keys_that_are_wrong_are_reported_by_file_and_key(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "m.gguf", spec_of(), **keys)
    begun = time.process_time()
    with pytest.raises(UsageError, match=message) as caught:
        load_spec(str(path))
    assert time.process_time() - begun < 1
    assert str(path) in str(caught.value)
    assert CliRunner().invoke(main, ["fit", str(path), "--device", "RTX 3060"]).exit_code == 2


EXPERTS: list[tuple[dict[str, Any], str]] = [
    ({"expert_count": None}, r"expert_count is missing, but must be the experts of its tensors \(8\)"),
    ({"expert_count": 16}, r"expert_count is 16, but must be the experts of its tensors \(8\)"),
    ({"expert_used_count": None}, r"expert_used_count is missing, but must be a whole number from 1 to 8"),
    ({"expert_used_count": 9}, r"expert_used_count is 9, but must be a whole number from 1 to 8"),
]


@pytest.mark.parametrize(("keys", "message"), EXPERTS)
def test_experts_at_odds_with_their_tensors_are_reported(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_gguf(write(tmp_path / "m.gguf", mixtral(), **keys))


OTHERS: dict[str, tuple[Callable[[], ModelSpec], str]] = {
    "the last block alone": (lambda: without(spec_of(), "blk.0.", "blk.1.", "blk.2."), r"blk\.0 has no tensors"),
    "a block is missing": (lambda: without(spec_of(), "blk.2."), r"blk\.2 has no tensors"),
    "Mamba": (lambda: renamed(spec_of(), "attn_q", "ssm_in"), "a GGUF of llama, which has recurrent layers"),
    "RWKV": (lambda: renamed(spec_of(), "attn_q", "time_mix_key"), "has recurrent layers"),
    "LFM2": (lambda: renamed(spec_of(), "attn_q", "shortconv.conv"), "has recurrent layers"),
    "T5": (lambda: renamed(spec_of(), "blk.0", "enc.blk.0"), "an encoder"),
    "a vision tower": (lambda: without(spec_of(), "token_embd"), "not a language model"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_kinds_are_reported(tmp_path: Path, name: str) -> None:
    made, message = OTHERS[name]
    with pytest.raises(UsageError, match=message):
        from_gguf(write(tmp_path / "m.gguf", made()))


def test_heads_by_layer_and_layers_without_attention(tmp_path: Path) -> None:
    """Of Llama-Nemotron some layers have fewer heads, some none, and some no tensor at all."""
    model = without(spec_of(num_attention_heads=8, num_key_value_heads=4, head_dim=32), "blk.2.")
    keys = {"attention__head_count": [8, 4, 0, 8], "attention__head_count_kv": [4, 1, 0, 2]}
    read = from_gguf(write(tmp_path / "m.gguf", model, **keys))
    assert [layer.kv_heads for layer in read.attention] == [4, 1, 0, 2]
    assert [layer.queries for layer in read.attention] == [256, 128, 0, 256]
    assert read.gqa == 2


def test_llama_4_slides_where_its_file_does_not_say(tmp_path: Path) -> None:
    model = spec_of("Llama4ForCausalLM", num_local_experts=2, intermediate_size_mlp=512)
    read = from_gguf(write(tmp_path / "m.gguf", model, attention__sliding_window=None))
    assert [layer.window for layer in read.attention] == [8192, 8192, 8192, None]
    everywhere = from_gguf(write(tmp_path / "m.gguf", model, attention__sliding_window=0))
    assert {layer.window for layer in everywhere.attention} == {None}


def split(folder: Path, tensors: int = 0) -> list[Path]:
    """A model as gguf-py writes it, in files of so many tensors (0: in one)."""
    import gguf

    model = from_config(SMALL | {"architectures": ["LlamaForCausalLM"]}).quantized("F32")
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=tensors)
    for key, value in random_metadata(model).items():
        if key == "general.architecture":
            continue
        kind = {int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
        getattr(writer, f"add_{kind}")(key, value)
    for name, dims in model.tensors.items():
        writer.add_tensor(name, np.zeros(dims, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


def test_a_model_in_several_files_is_planned_whole_from_any_of_them(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    whole, parts = split(tmp_path), split(tmp_path / "parts", 11)
    assert [path.name for path in parts] == [f"m-0000{i}-of-00004.gguf" for i in (1, 2, 3, 4)]
    one = from_gguf(whole[0])
    for named in (*parts, tmp_path / "parts"):
        several = load_spec(str(named))
        assert several.name == "m.gguf"
        for key in ("tensors", "types", "attention", "vocab", "context", "quantization", "gqa", "data_bytes"):
            assert getattr(several, key) == getattr(one, key), key
        assert memory(several, 512).weights == sum(path.stat().st_size for path in parts)


def test_a_part_that_is_missing_or_of_another_model_is_reported(tmp_path: Path) -> None:
    parts = split(tmp_path, 11)
    third = parts[2].read_bytes()
    parts[2].unlink()
    with pytest.raises(
        UsageError, match=r"one of 4 files of a model, and m-00003-of-00004\.gguf is not in the same folder"
    ):
        from_gguf(parts[0])
    assert CliRunner().invoke(main, ["fit", str(parts[0]), "--device", "RTX 3060"]).exit_code == 2
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(UsageError, match=r"m-00003-of-00004\.gguf: should be file 2 of 4, but says that it is file 1"):
        from_gguf(parts[0])
    second = parts[1].read_bytes()
    parts[1].write_bytes(third)
    parts[2].write_bytes(second)
    with pytest.raises(UsageError, match=r"m-00002-of-00004\.gguf: should be file 1 of 4, but says that it is file 2"):
        from_gguf(parts[0])
    parts[1].write_bytes(second)
    parts[2].write_bytes(third[: len(third) // 2])
    with pytest.raises(UsageError, match=r"m-00003-of-00004\.gguf: .*cut short"):
        from_gguf(parts[0])
    parts[2].write_bytes(third)
    lone = parts[0].rename(tmp_path / "model.gguf")
    with pytest.raises(UsageError, match=r"model\.gguf: one of 4 files .*Call them NAME-00001-of-0000N\.gguf"):
        from_gguf(lone)


def test_endless_counts_in_a_file_with_holes_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    texts = struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**40)
    for counts, rest in ((struct.pack("<QQ", 2**40, 0), b""), (struct.pack("<QQ", 0, 1), texts)):
        with path.open("wb") as file:
            file.write(b"GGUF" + struct.pack("<I", 3) + counts + rest)
            file.truncate(2**33)
        with pytest.raises(UsageError, match="cut short or damaged"):
            from_gguf(path)
