"""A model's folder that must not be loaded is refused from its files alone, wherever a recipe names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.components.models.folder import resolve_model
from potstill.components.models.foreign import check_folder
from potstill.core.errors import RecipeError

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}


def write(folder: Path, name: str, value: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config.json, which is all that is read."""
    write(tmp_path, "config.json", CONFIG)
    check_folder(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_attn_implementation": "someone/kernels"}, "someone/kernels.*code outside of transformers"),
        ({"attn_implementation": {"": "sdpa", "text_config": "a/b@main"}}, "a/b@main"),
        ({"text_config": {"attn_implementation": "a/b"}}, "attn_implementation is 'a/b'"),
        ({"llm_config": {"inner": [{"_experts_implementation": "a/b"}]}}, "_experts_implementation is 'a/b'"),
        ({"experts_implementation": "sonicmoe"}, "Delete the key"),
        ({"attn_implementation": ["eager"]}, "attn_implementation is"),
        ({"text_config": {"auto_map": CODE}}, "no code of a model is run"),
        ({"auto_map": {"AutoConfig": "someone/elsewhere--own.Config"}, "model_type": "own"}, "someone/elsewhere"),
        ({"auto_map": {"AutoConfig": [None, {}]}, "model_type": ["llama"]}, "no code of a model is run"),
        ({"transformers_weights": "adapter_model.bin"}, "transformers_weights names 'adapter_model.bin'"),
        ({"text_config": {"num_hidden_layers": 2**31}}, "num_hidden_layers must be 0 or more and 1,000 at most"),
        ({"n_layer": 2**31}, "n_layer must be"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be 0 or more"),
    ],
)
def test_config_that_would_need_code_or_names_a_size_that_none_has(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    write(folder, "config.json", CONFIG | change)
    with pytest.raises(RecipeError, match=rf"config\.json: .*{message}") as error:
        check_folder(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": CODE},  # many models that transformers knows still name the code that they came with
        {"attn_implementation": "sdpa", "vision_config": {"_attn_implementation": "eager"}, "depth": 32},
        {"_attn_implementation": None, "experts_implementation": {"": "grouped_mm"}},
    ],
)
def test_config_that_transformers_loads_by_itself(folder: Path, change: dict[str, Any]) -> None:
    write(folder, "config.json", CONFIG | change)
    check_folder(folder)


def test_flash_attention_is_taken_only_where_it_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "config.json", CONFIG | {"_attn_implementation": "flash_attention_2"})
    with pytest.raises(RecipeError, match="flash_attention_2"):
        check_folder(folder)
    monkeypatch.setattr("potstill.components.models.foreign.find_spec", lambda name: name)
    check_folder(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "processor_config.json"])
def test_code_that_another_config_names(folder: Path, name: str) -> None:
    write(folder, name, {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["own.T", None]}})
    with pytest.raises(RecipeError, match=rf"{name}: auto_map names own\.T.*Delete the key"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"])
@pytest.mark.parametrize("with_config", [True, False])
def test_an_adapter_is_not_a_model(folder: Path, name: str, with_config: bool) -> None:
    write(folder, name, {"base_model_name_or_path": "someone/model"})
    if not with_config:
        (folder / "config.json").unlink()
    with pytest.raises(RecipeError, match=rf"{name}: the folder holds an adapter.*merge_and_unload"):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    ("file", "message"), [("weights.bin", "a pickle can run code"), ("../x.safetensors", "outside")]
)
def test_index_that_names_other_files(folder: Path, file: str, message: str) -> None:
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": file}})
    with pytest.raises(RecipeError, match=rf"model\.safetensors\.index\.json: names '{file}'.*{message}"):
        check_folder(folder)


@pytest.mark.parametrize(
    "name", ["model.pt", "weights.pth", "last.ckpt", "pytorch_model.bin", "flax_model.msgpack", "tf_model.h5", "m.gguf"]
)
def test_weights_in_another_format_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    (folder / "training_args.bin").write_bytes(b"x")
    with pytest.raises(RecipeError, match=rf"{name}: only weights in safetensors are read.*save_pretrained"):
        resolve_model(str(folder))


def test_state_of_a_training_is_not_called_weights(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"model\.safetensors: no such file, so the model has no weights"):
        resolve_model(str(folder))


def test_shards_without_their_index_are_no_weights(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"no such file \(found model-00001-of-00002\.safetensors\).*index"):
        resolve_model(str(folder))
