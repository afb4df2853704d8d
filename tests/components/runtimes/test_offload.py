"""A teacher whose layers wait on disk: it says the same, to the bit, and a student learns the same from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finished_run import write_exported
from fixtures import make_model, read_log, write_recipe
from potstill.components.runtimes import load
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm, on_device
from potstill.core.errors import RecipeError
from potstill.core.recipe import load_recipe
from potstill.pipeline import run as pipeline
from potstill.stages.evaluate.models import teacher_runtime
from potstill.stages.evaluate.stage import STAGE
from stage_runs import stage_inputs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_it_says_the_same_with_its_layers_on_disk(tiny_model: Path, dtype: str) -> None:
    whole, offloaded = load_causal_lm(tiny_model, dtype), on_device(load_causal_lm(tiny_model, dtype, "disk"))
    layers = offloaded.model.layers
    assert {p.device.type for p in layers.parameters()} == {"meta"}
    assert offloaded.get_output_embeddings().weight.device.type == "cpu"
    ids = torch.randint(3, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    assert torch.equal(offloaded(input_ids=ids).logits, whole(input_ids=ids).logits)
    # each layer is away again once it has run
    assert {p.device.type for p in layers.parameters()} == {"meta"}


@pytest.mark.parametrize("objective", [{}, {"hidden": {}}, {"on_policy": {"share": 0.5}}, {"targets": "counts"}])
def test_a_student_learns_the_same_from_it(
    tiny_model: Path, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: dict[str, Any]
) -> None:
    start = make_model(tmp_path / "start", layers=2, seed=5)
    logs: list[list[float]] = []
    loaded: set[tuple[str | None, ...]] = set()

    def watched(folder: Path, *how: Any) -> Any:
        if folder == tiny_model:
            loaded.add(how)
        return load_causal_lm(folder, *how)

    monkeypatch.setattr(load, "load_causal_lm", watched)
    for name, offload in (("whole", {}), ("offloaded", {"offload": "disk"})):
        (tmp_path / name).mkdir()
        teacher = {"model": str(tiny_model), **offload}
        student = {"init": "checkpoint", "model": str(start)}
        path = write_recipe(tmp_path / name, workload, teacher, student, epochs=2, objective=objective)
        done = pipeline.run(load_recipe(path), tmp_path / name / "runs", until="train")
        logs.append([line["loss"] for line in read_log(done.folder("train"))])
        assert loaded == {("float32", offload.get("offload"))}
        loaded.clear()
    assert logs[0] == logs[1]


def test_it_is_evaluated_from_disk_too(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    away, student = {"model": str(tiny_model), "offload": "disk"}, {"init": "checkpoint", "model": str(tiny_model)}
    recipe = load_recipe(write_recipe(tmp_path, workload, away, student))
    steps = {name: tmp_path / name for name in ("train", "export")}
    (steps["train"] / "student").mkdir(parents=True)
    (steps["train"] / "student" / "config.json").write_text("{}")
    (steps["train"] / "summary.json").write_text("{}")
    write_exported(steps["export"], "tiny.gguf")
    teacher = teacher_runtime(stage_inputs(STAGE, recipe, steps))
    assert isinstance(teacher, HFRuntime)
    assert {p.device.type for p in teacher.model.model.layers.parameters()} == {"meta"}


def test_what_it_leaves_out_is_refused(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    away = {"model": str(tiny_model), "offload": "disk"}
    path = write_recipe(tmp_path, workload, away, {"init": "teacher_layers", "layers": 2})
    with pytest.raises(RecipeError, match="offload: disk leaves no whole weights"):
        load_recipe(path)
    path = write_recipe(tmp_path, workload, away | {"dtype": "int8"}, {"init": "checkpoint", "model": str(tiny_model)})
    with pytest.raises(RecipeError, match="int8 cannot be offloaded"):
        load_recipe(path)
    served = {"kind": "api", "model": "m", "base_url": "http://localhost:1/v1", "offload": "disk"}
    path = write_recipe(tmp_path, workload, served, {"init": "checkpoint", "model": str(tiny_model)})
    with pytest.raises(RecipeError, match=r"unknown key 'teacher\.offload'"):
        load_recipe(path)
