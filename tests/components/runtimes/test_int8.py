"""A teacher in 8 bits: nearly the same distributions in a quarter of the bytes, and a student that learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import make_model, read_log, write_recipe
from potstill.components.models.configs import from_config
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.sizing.training_memory import teacher_weight_bytes
from potstill.core.errors import RecipeError
from potstill.core.recipe import load_recipe
from potstill.pipeline import run as pipeline

pytest.importorskip("bitsandbytes")


def int8(model: Path) -> dict[str, Any]:
    return {"model": str(model), "dtype": "int8"}


@torch.no_grad()
def test_it_says_nearly_the_same_in_fewer_bytes(tiny_model: Path) -> None:
    whole, small = load_causal_lm(tiny_model), load_causal_lm(tiny_model, "int8")
    small_layers = {name: p for name, p in small.model.layers.named_parameters() if p.ndim == 2}
    assert {p.dtype for p in small_layers.values()} == {torch.int8}
    assert small.get_output_embeddings().weight.dtype == torch.bfloat16
    ids = torch.randint(3, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    p, q = (model(input_ids=ids).logits.float().log_softmax(-1) for model in (whole, small))
    flat = torch.full_like(p, -torch.tensor(p.shape[-1]).log())
    divergence, from_flat = ((p.exp() * (p - x)).sum(-1).mean() for x in (q, flat))
    assert 0 < divergence < 0.01 * from_flat


def test_its_bytes_are_known_beforehand(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    small = load_causal_lm(tiny_model, "int8")
    recipe = load_recipe(
        write_recipe(tmp_path, workload, int8(tiny_model), {"init": "checkpoint", "model": str(tiny_model)})
    )
    shape = from_config(small.config.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    said = teacher_weight_bytes(recipe, small.num_parameters(), shape)
    # norms are held in two bytes and counted as one
    assert said == pytest.approx(sum(p.nbytes for p in small.parameters()), rel=0.01)


def test_a_student_learns_from_it(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    start = make_model(tmp_path / "start", layers=2, seed=5)
    student, train = {"init": "checkpoint", "model": str(start)}, {"epochs": 12, "learning_rate": 3e-3}
    recipe = load_recipe(write_recipe(tmp_path, workload, int8(tiny_model), student, **train))
    done = pipeline.run(recipe, tmp_path / "runs", until="train")
    log = read_log(done.folder("train"))
    assert log[-1]["divergence"] < 0.5 * log[0]["divergence"]


def test_it_has_no_layers_to_start_a_student_from(tiny_model: Path, workload: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, workload, int8(tiny_model), {"init": "teacher_layers", "layers": 2})
    with pytest.raises(RecipeError, match="int8 leaves no whole weights"):
        load_recipe(path)
