"""Training rejects what it cannot do correctly, and a step runs again when its inputs change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import FalconConfig, FalconForCausalLM, PhiConfig, PhiForCausalLM, Qwen3NextConfig

from fixtures import light_rows, write_jsonl
from potstill.components.runtimes import load
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.attention import grouped_attention
from potstill.components.training.ranks import make_accelerator
from potstill.core.errors import RecipeError, StepError
from potstill.core.hashing import hashed_value
from potstill.core.recipe import Recipe
from potstill.core.steps import Done
from potstill.pipeline import run as pipeline
from potstill.stages.finetune import stage as finetune
from potstill.stages.generate.stage import STAGE, make_inputs

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def recipe(model: Path, workload: Path, teacher: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "refusals",
            "data": {
                "prompts": workload / "train.jsonl",
                "test": workload / "test.jsonl",
                "tools": workload / "tools.json",
            },
            "chat": {"context": 128},
            "teacher": {"model": str(model)} | (teacher or {}),
            "generate": {"max_new_tokens": 8, "temperature": 1.0, "keep_truncated": True},
            "student": {"init": "checkpoint", "model": str(model)},
        }
        | sections
    )


def test_a_model_with_its_own_attention_code_is_rejected() -> None:
    model = FalconForCausalLM(FalconConfig(**SMALL))
    before = model.config._attn_implementation
    with pytest.raises(StepError, match="FalconForCausalLM has its own attention code"), grouped_attention(model):
        pass
    assert model.config._attn_implementation == before


def test_layers_without_attention_are_rejected(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    model.config.layer_types = Qwen3NextConfig(num_hidden_layers=4).layer_types
    with pytest.raises(StepError, match="layers of kind linear_attention"), grouped_attention(model):
        pass


def test_a_bias_of_the_head_is_rejected(tmp_path: Path) -> None:
    PhiForCausalLM(PhiConfig(**SMALL, intermediate_size=48)).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="adds a bias to its logits"):
        load_causal_lm(tmp_path)


def test_a_tracker_that_is_not_installed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.warns(UserWarning, match="no supported trackers"), pytest.raises(StepError, match="pip install wandb"):
        make_accelerator(tmp_path, "wandb", "student")


def test_more_shallow_layers_than_the_teacher_has_are_rejected(
    tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))
    given = recipe(tiny_model, workload, {"finetune": {"rows": rows, "shallow_layers": 4}})
    with pytest.raises(RecipeError, match="shallow_layers: 4 is not less than the model's 4 layers"):
        pipeline.run(given, tmp_path / "runs", until="finetune")


def test_a_teacher_is_fine_tuned_again_for_another_number_format(
    tiny_model: Path, workload: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))
    found = [
        hashed_value(
            finetune.STAGE.inputs(
                recipe(tiny_model, workload, {"finetune": {"rows": rows}, "dtype": dtype}), Done({}, ())
            )
        )
        for dtype in ("float32", "bfloat16", "int8")
    ]
    assert found[0] != found[1] == found[2]


def test_a_price_does_not_pay_for_answers_twice(tiny_model: Path, workload: Path) -> None:
    given = [recipe(tiny_model, workload, prices=prices) for prices in ({}, {"input": 1.0, "output": 2.0})]
    found = [hashed_value(make_inputs(one, Done({}, STAGE.reads))) for one in given]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("sections", "loads"),
    [
        ({"train": {"control": "none"}}, 1),
        ({"train": {"objective": "sft", "control": "none"}}, 0),
        ({"train": {"objective": {"targets": "counts"}}}, 0),
        ({"train": {"objective": {"targets": "counts", "hidden": {}}, "control": "none"}}, 1),
    ],
)
def test_the_teacher_is_loaded_only_if_it_teaches(
    tiny_model: Path,
    workload: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, Any],
    loads: int,
) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    for file in tiny_model.iterdir():
        (teacher / file.name).write_bytes(file.read_bytes())
    given = recipe(teacher, workload, student={"init": "checkpoint", "model": str(tiny_model)}, **sections)
    pipeline.run(given, tmp_path / "runs", until="targets" if given.stored_targets else "generate")
    loaded: list[Path] = []

    def watched(folder: Path, *how: Any) -> Any:
        loaded.append(folder)
        return load_causal_lm(folder, *how)

    monkeypatch.setattr(load, "load_causal_lm", watched)
    done = pipeline.run(given, tmp_path / "runs", until="train")
    assert loaded.count(teacher) == loads
    assert (done.folder("train") / "student" / "model.safetensors").is_file()
