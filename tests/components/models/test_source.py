"""What a user names as a model: odd files are reported by name and key, and shapes say what config.json files say."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fixtures import CONFIGS
from potstill.cli.main import main
from potstill.components.models.architectures import ARCHITECTURES, not_supported
from potstill.components.models.configs import from_config
from potstill.components.models.shapes import shape_of, shape_to_config
from potstill.components.models.source import load_config, load_spec
from potstill.core.errors import UsageError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 600, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
GEMMA = LLAMA | {"architectures": ["Gemma3ForCausalLM"]}
MIXTRAL = LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}
QWEN_MOE = LLAMA | {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2}

WRONG: list[tuple[Any, str]] = [
    ({"architectures": {"a": 1}}, "architectures must be a list with the name of a class, found {'a': 1}"),
    ({"architectures": 7}, "architectures must be a list .*found 7"),
    ({"architectures": "LlamaForCausalLM"}, "architectures must be a list"),
    ({"architectures": [["LlamaForCausalLM"]]}, "architectures must be a list"),
    ({"architectures": []}, "architectures must be a list"),
    ({}, "architectures must be a list .*found None"),
    ([], "must hold a JSON object"),
    ("LlamaForCausalLM", "must hold a JSON object"),
    (GEMMA | {"text_config": "small"}, r"text_config must be an object \(\{\.\.\.\}\), found 'small'"),
    (GEMMA | {"text_config": [1]}, "text_config must be an object"),
    (GEMMA | {"layer_types": ["sliding_attention"] * 3}, "layer_types has 3 entries, and num_hidden_layers is 4"),
    (GEMMA | {"layer_types": "sliding_attention"}, "layer_types must be a list of words"),
    (GEMMA | {"layer_types": [["full_attention"]] * 4}, "layer_types must be a list of words"),
    (GEMMA | {"layer_types": ["linear_attention"] * 4}, "layer_types has 'linear_attention', which is not one of"),
    (GEMMA | {"sliding_window": "wide"}, "sliding_window must be a positive integer, found 'wide'"),
    (LLAMA | {"rope_scaling": "llama3"}, "rope_scaling must be an object"),
    (LLAMA | {"hidden_size": 0}, "hidden_size must be a positive integer, found 0"),
    (LLAMA | {"hidden_size": True}, "hidden_size must be a positive integer, found True"),
    (LLAMA | {"vocab_size": "many"}, "vocab_size must be a positive integer, found 'many'"),
    (LLAMA | {"vocab_size": None}, "vocab_size is missing"),
    (LLAMA | {"num_hidden_layers": 3_000_000}, "num_hidden_layers must be 1,000 at most, found 3000000"),
    (LLAMA | {"hidden_size": 2**25}, "hidden_size must be 16,777,216 at most"),
    (LLAMA | {"intermediate_size": 2**25}, "intermediate_size must be 16,777,216 at most"),
    (LLAMA | {"vocab_size": 2**25}, "vocab_size must be 16,777,216 at most"),
    (LLAMA | {"num_attention_heads": 2**15}, "num_attention_heads must be 16,384 at most"),
    (MIXTRAL | {"num_local_experts": 2**20}, "num_local_experts must be 16,384 at most"),
    (LLAMA | {"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, found 'false'"),
    (LLAMA | {"attention_bias": 1}, "attention_bias must be true or false, found 1"),
    (LLAMA | {"num_key_value_heads": 3}, r"num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)"),
    (LLAMA | {"hidden_size": 250}, r"num_attention_heads \(4\) must divide hidden_size \(250\) unless head_dim"),
    (MIXTRAL | {"num_experts_per_tok": 9}, r"num_experts_per_tok \(9\) must not exceed .*num_local_experts \(8\)"),
    (QWEN_MOE | {"num_experts_per_tok": 9}, r"num_experts_per_tok \(9\) must not exceed .*num_experts \(8\)"),
    (QWEN_MOE | {"mlp_only_layers": 3}, "mlp_only_layers must be a list of integers, found 3"),
    (QWEN_MOE | {"decoder_sparse_step": 0}, "decoder_sparse_step must be a positive integer"),
    ({"architectures": ["NewForCausalLM"]}, "architecture NewForCausalLM is not known.*GGUF file"),
    ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM has recurrent layers"),
    ({"architectures": ["Qwen3NextForCausalLM"]}, "Qwen3NextForCausalLM has recurrent layers"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "is a classifier or an encoder"),
    ({"architectures": ["ModernBertModel"]}, "is a classifier or an encoder"),
]


def plan(model: str) -> Any:
    return CliRunner().invoke(main, ["fit", model, "--device", "RTX 3060"])


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_a_wrong_config_is_reported_by_file_and_key(tmp_path: Path, config: Any, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    begun = time.process_time()
    for load in (load_spec, load_config):
        with pytest.raises(UsageError, match=message) as caught:
            load(str(tmp_path))
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 400 + len(str(path))
    assert time.process_time() - begun < 1
    assert plan(str(path)).exit_code == 2


def test_families_that_are_none_are_not_refused_for_their_names() -> None:
    """The lists of encoders and recurrent models must not catch a known class, nor a new decoder's."""
    for kind in (
        *ARCHITECTURES,
        "Olmo2ForCausalLM",
        "GraniteForCausalLM",
        "MiniMaxM2ForCausalLM",
        "Cohere2ForCausalLM",
    ):
        assert "is not known" in not_supported(kind)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        ("{}".encode("utf-16"), "not UTF-8 text"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"", "Expecting value"),
        (b"{}" + b" " * (16 * 2**20), r"not a config.json \(16,777,218 bytes\)"),
    ],
)
def test_a_file_that_is_no_json_is_reported(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(raw)
    for load in (load_spec, load_config):
        with pytest.raises(UsageError, match=message) as caught:
            load(str(path))
        assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8-sig")
    assert load_spec(str(path)).layers == 4
    assert load_config(str(tmp_path)) == LLAMA


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/" + "a" * 5000, "no such file or folder"),
        ("a" * 300, "no such file or folder"),
        ("/dev/null", "neither a file nor a folder"),
        ("a\0b", "no such file or folder"),
        ("~nobody-of-this-name/config.json", "no such file or folder"),
        ("nothing", "no such file or folder"),
        ("/etc/hostname/config.json", "no such file or folder"),
    ],
)
def test_a_path_that_names_no_model_is_reported(model: str, message: str) -> None:
    for load in (load_spec, load_config):
        with pytest.raises(UsageError, match=message) as caught:
            load(model)
        assert len(str(caught.value)) < 700
    assert plan(model).exit_code == 2


@pytest.mark.parametrize("name", ["config.json", "m.gguf"])
def test_a_file_that_may_not_be_read_is_reported(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(LLAMA))

    def refused(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)  # a root may read any file
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UsageError, match=rf"{name}: cannot be read \(Permission denied\)"):
        load_spec(str(path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="a root may look into any folder")
def test_a_folder_that_may_not_be_looked_into_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_spec(str(folder))


def test_a_folder_with_files_of_two_models_is_reported(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="the folder has 2 GGUF files; name one"):
        load_spec(str(tmp_path))
    with pytest.raises(UsageError, match="a GGUF file has no config"):
        load_config(str(tmp_path / "a.gguf"))


SHAPE = "layers=2,hidden=256,ffn=512,heads=4,vocab=600"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bert:layers=2", "'bert' is not one of llama, qwen2"),
        ("lama:layers=2", "did you mean llama"),
        ("llama:layers=2,hiden=3", "'hiden' is not a key of llama \\(did you mean hidden\\?\\); its keys are layers"),
        ("llama:layers", "'layers' is not KEY=NUMBER"),
        ("llama:layers=2,layers=3", "layers is given twice"),
        ("llama:layers=2", "heads is missing"),
        ("llama:layers=2,hidden=10,ffn=4,heads=0,vocab=9", "heads must be a positive integer, found 0"),
        ("llama:layers=2,hidden=10,ffn=4,heads=-1,vocab=9", "heads must be a positive number, found '-1'"),
        ("llama:layers=²,hidden=10,ffn=4,heads=1,vocab=9", "layers must be a positive number, found '²'"),
        (f"llama:layers={'9' * 5000}," + SHAPE[9:], "layers must be a positive number"),
        ("llama:layers=1000000," + SHAPE[9:], "layers must be 1,000 at most, found 1000000"),
        (
            "llama:layers=2,hidden=10,ffn=4,heads=32,vocab=9",
            r"heads \(32\) must divide hidden \(10\) unless head_dim",
        ),
        (f"llama:{SHAPE},kv_heads=3", r"heads \(4\) must be a multiple of kv_heads \(3\)"),
        (f"llama:{SHAPE},tied=2", "tied must be 0 or 1 or false or true, found '2'"),
        (f"llama:{SHAPE},tied=yes", "tied must be 0 or"),
        (f"llama:{SHAPE},rope=yarn", "rope must be none or llama3, found 'yarn'"),
        (f"qwen2:{SHAPE},rope=llama3", "'rope' is not a key of qwen2"),
        (f"llama:{SHAPE},window=4", "'window' is not a key of llama"),
        (f"qwen3:{SHAPE},experts=8,used=2", "'experts' is not a key of qwen3"),
        (f"llama:{SHAPE},experts=8", "used is missing"),
        (f"llama:{SHAPE},used=8", "experts is missing"),
        (f"llama:{SHAPE},experts=8,used=9", r"used \(9\) must not exceed the number of experts, experts \(8\)"),
        (f"qwen3moe:{SHAPE},experts=8,used=2", "expert_ffn is missing"),
        (f"llama:{SHAPE},experts=8,used=2,rope=llama3", "rope does not go with experts"),
    ],
)
def test_a_shape_that_is_not_one_is_reported(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_spec(words)
    assert "Example: llama:layers=" in str(caught.value)
    with pytest.raises(UsageError, match=message):
        load_config(words)
    assert plan(words).exit_code == 2


def public(name: str) -> str:
    return str(CONFIGS / f"{name}.json")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (
            "llama:layers=32,hidden=4096,ffn=14336,heads=32,kv_heads=8,vocab=128256,context=131072,rope=llama3",
            "llama-3.1-8b",
        ),
        (
            "llama:layers=32,hidden=4096,ffn=14336,heads=32,kv_heads=8,vocab=32000,context=32768,experts=8,used=2",
            "mixtral-8x7b",
        ),
        (
            "qwen3moe:layers=48,hidden=2048,heads=32,kv_heads=4,head_dim=128,vocab=151936,context=40960,experts=128,"
            "used=8,expert_ffn=768",
            "qwen3-30b-a3b",
        ),
        (
            "gemma2:layers=26,hidden=2304,ffn=9216,heads=8,kv_heads=4,head_dim=256,vocab=256000,context=8192,"
            "window=4096",
            "gemma-2-2b",
        ),
        (
            "gpt-oss:layers=24,hidden=2880,ffn=2880,heads=64,kv_heads=8,vocab=201088,context=131072,experts=32,used=4,"
            "window=128",
            "gpt-oss-20b",
        ),
        ("smollm3:layers=36,hidden=2048,ffn=11008,heads=16,kv_heads=4,vocab=128256,context=65536", "smollm3-3b"),
        (
            "qwen2vl:layers=28,hidden=3584,ffn=18944,heads=28,kv_heads=4,vocab=152064,context=128000",
            "qwen2.5-vl-7b",
        ),
    ],
)
def test_a_shape_is_the_model_of_its_config(words: str, name: str) -> None:
    shape, config = load_spec(words).quantized("Q4_K_M"), load_spec(public(name)).quantized("Q4_K_M")
    for key in (
        "architecture",
        "tensors",
        "types",
        "attention",
        "context",
        "experts",
        "experts_used",
        "gqa",
        "data_bytes",
    ):
        assert getattr(shape, key) == getattr(config, key), key


def test_every_config_with_words_is_its_shape_to_the_byte() -> None:
    seen = []
    for path in CONFIGS.glob("*.json"):
        config = load_config(str(path))
        if path.stem in ("deepseek-v3", "llama-4-scout", "phi-3.5-moe"):
            with pytest.raises(ValueError, match="cannot be written as a shape"):
                shape_of(config)
            continue
        words = shape_of(config)
        seen.append(path.stem)
        ours, theirs = load_spec(words), load_spec(str(path))
        for key in (
            "architecture",
            "tensors",
            "attention",
            "context",
            "experts",
            "experts_used",
            "gqa",
            "vocab",
            "hidden",
        ):
            assert getattr(ours, key) == getattr(theirs, key), (words, key)
        assert shape_of(shape_to_config(words)) == words
    assert len(seen) > 15
    assert {"llama-3.1-8b", "mixtral-8x7b", "gemma-3-4b", "mistral-small-3.1-24b", "gpt-oss-20b"} <= set(seen)


def test_flags_of_a_config_are_in_its_words() -> None:
    for rope, biased, tied in itertools.product((None, {"rope_type": "llama3"}), (False, True), (False, True)):
        config = LLAMA | {"rope_scaling": rope, "tie_word_embeddings": tied}
        config |= {"attention_bias": biased, "mlp_bias": biased}
        words = shape_of(config)
        assert ("rope=llama3" in words, "attention_bias=1" in words, "tied=1" in words) == (bool(rope), biased, tied)
        assert load_spec(words).tensors == load_spec(shape_of(shape_to_config(words))).tensors
        assert ("rope_freqs.weight" in load_spec(words).tensors) == bool(rope)
        assert ("blk.0.ffn_up.bias" in load_spec(words).tensors) == biased
    # a class that looks at no such key
    assert "bias" not in shape_of(LLAMA | {"architectures": ["MistralForCausalLM"], "attention_bias": True})
    # where a family is tied unless it says otherwise
    untied = shape_of(GEMMA | {"tie_word_embeddings": False})
    assert "tied=0" in untied and not load_spec(untied).tied
    assert load_spec(f"llama:{SHAPE}").attention[0].kv_heads == 4
    assert load_spec(f"qwen2:{SHAPE}").attention[0].kv_heads == 4


def test_keys_that_a_class_does_not_look_at_change_nothing() -> None:
    ignored = {"num_local_experts": 8, "sliding_window": 64, "layer_types": ["full"], "use_cache": "yes"}
    assert from_config(LLAMA | ignored) == from_config(LLAMA)


def test_plan_of_a_shape_is_plan_of_its_config_to_the_byte() -> None:
    models = (shape_of(load_config(public("llama-3.2-1b"))), public("llama-3.2-1b"))
    words = ("--device", "RTX 3060", "--json")
    shape, config = (json.loads(CliRunner().invoke(main, ["fit", model, *words]).output) for model in models)
    assert shape | {"model": ""} == config | {"model": ""}
