"""A model's folder can hold code, pickles and gaps: all are refused by name before anything runs."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from fixtures import make_encoder
from potstill.components.models.safetensors import safetensors_parameters
from potstill.components.runtimes.classifier import load_classifier
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


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of model.safetensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


QUERIES = "model.layers.0.self_attn.q_proj.weight"


def test_missing_tensor_is_named_with_the_one_that_is_left_over(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update(renamed=tensors.pop(QUERIES)))
    with pytest.raises(RecipeError, match=f"the weights lack {QUERIES}, and have renamed, which this model does not"):
        load_causal_lm(folder)


def test_tensor_of_another_shape_is_named(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({QUERIES: tensors[QUERIES][:8].clone()}))
    with pytest.raises(
        RecipeError, match=rf"tensor {QUERIES} has shape \(8, 64\), but config\.json implies \(64, 64\)"
    ):
        load_causal_lm(folder)


def test_tensors_that_the_model_does_not_have_are_counted_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def add_tower(tensors: dict[str, Tensor]) -> None:
        tensors |= {f"vision_tower.{n}.weight": tensors[QUERIES].clone() for n in range(3)}

    change_weights(folder, add_tower)
    load_causal_lm(folder)
    load_causal_lm(folder)
    said = "model: 3 tensors of the weights are not used (vision_tower.0.weight and 2 more)."
    assert [line.strip() for line in capfd.readouterr().err.splitlines()] == [said]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `base`, a BERT without a head, and `finished`, one with a head for two classes."""
    folder = tmp_path_factory.mktemp("encoders")
    base = make_encoder(folder / "base", layers=1)
    load_classifier(base, ["yes", "no"]).save_pretrained(folder / "finished")
    return folder


def test_new_head_on_an_encoder_is_trained_and_a_finished_classifier_has_one(encoders: Path) -> None:
    load_classifier(encoders / "base", ["yes", "no"])
    load_classifier(encoders / "finished")
    load_classifier(encoders / "finished", ["one", "of", "three"])
    with pytest.raises(RecipeError, match=r"the weights lack .*classifier\.bias, classifier\.weight"):
        load_classifier(encoders / "base")


@pytest.mark.parametrize("labels", [None, ["yes", "no"]])
def test_damaged_encoder_is_refused_whether_its_head_is_new_or_not(
    encoders: Path, tmp_path: Path, labels: list[str] | None
) -> None:
    folder = Path(shutil.copytree(encoders / "finished", tmp_path / "model"))
    name = "bert.encoder.layer.0.output.dense.weight"
    whole = load_file(folder / "model.safetensors")[name]
    change_weights(folder, lambda tensors: tensors.update({name: whole[:4].clone()}))
    with pytest.raises(RecipeError, match=rf"tensor {name} has shape \(4, 64\)"):
        load_classifier(folder, labels)
    change_weights(folder, lambda tensors: tensors.update({"bert.renamed": tensors.pop(name)}))
    with pytest.raises(RecipeError, match=rf"lack {name}, and have bert\.renamed"):
        load_classifier(folder, labels)


def in_terminal(program: str, seconds: float = 60.0) -> tuple[str, int]:
    """What a Python program prints on a terminal on which nobody types, and its exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    out, end = b"", time.monotonic() + seconds
    with suppress(OSError):  # how the end of a terminal is reported
        while select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
            out += os.read(ours, 4096)
    process.kill()
    os.close(ours)
    return out.decode(errors="replace"), process.wait()


def test_code_of_the_model_is_not_run_and_nobody_is_asked(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    change_config(folder, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    with pytest.raises(RecipeError, match="no code of a model is run"):
        load_causal_lm(folder)
    program = f"""
from pathlib import Path
from potstill.components.runtimes import foreign, load
from transformers import AutoConfig
foreign.check_folder = lambda folder: None
for call in (load.load_causal_lm, AutoConfig.from_pretrained):
    try:
        call(Path({str(folder)!r}))
    except Exception as error:
        print("refused", type(error).__name__)
"""
    printed, status = in_terminal(program)
    assert status == 0
    assert "refused RecipeError" in printed and "refused ValueError" in printed
    assert "[y/N]" not in printed
    assert not ran.exists()


@pytest.mark.parametrize("method", ["aqlm", None])
def test_quantization_that_cannot_be_loaded_is_one_paragraph(folder: Path, method: str | None) -> None:
    change_config(folder, quantization_config={"quant_method": method})
    with pytest.raises(RecipeError, match=rf"cannot load this model \(.*{'AQLM' if method else 'quant_method'}"):
        load_causal_lm(folder)


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
