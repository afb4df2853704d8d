"""A model's folder can hold code, pickles and gaps: all are refused by name before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from potstill.components.models.safetensors import safetensors_parameters
from potstill.components.runtimes.load import load_causal_lm
from potstill.core.errors import RecipeError


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change_config(folder: Path, **values: object) -> None:
    """Set keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_missing_tensor_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "layers.0" in name)
    tensors["renamed"] = tensors.pop(name)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RecipeError, match=f"the weights lack {name}"):
        load_causal_lm(folder)


def test_code_of_the_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    change_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    with pytest.raises(RecipeError, match="cannot load this model"):
        load_causal_lm(folder)
    assert not ran.exists()


def test_kernel_in_a_config_is_refused(folder: Path) -> None:
    change_config(folder, _attn_implementation="evil/kernels")
    with pytest.raises(RecipeError, match="Delete the key"):
        load_causal_lm(folder)


def test_pickle_in_an_index_is_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    with pytest.raises(RecipeError, match=r"pytorch_model\.bin.*only weights in safetensors"):
        load_causal_lm(folder)


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size"])
def test_size_that_no_model_has_is_refused_before_the_model_is_built(folder: Path, key: str) -> None:
    change_config(folder, **{key: 2**31})
    with pytest.raises(RecipeError, match=rf"config\.json: {key} must be .* at most, found 2147483648"):
        load_causal_lm(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickle_alone_is_refused_by_its_name(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(RecipeError, match=rf"{name}: only weights in safetensors"):
        safetensors_parameters(folder)
