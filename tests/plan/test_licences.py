"""May it ship: the facts table row by row, and it fails closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.plan.licences import ALLOWED, BLOCKED, OBLIGATIONS, licence_verdict
from potstill.recipe import load_recipe

BASE = {"init": "checkpoint", "model": "Qwen/Qwen3-0.6B", "license": "apache-2.0"}


def verdict(tmp_path: Path, *, teacher: dict[str, Any], student: dict[str, Any] | None = None, **top: Any) -> Any:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    recipe = {
        "name": top.pop("name", "try"),
        "data": {"prompts": "rows.jsonl", "test": "rows.jsonl", "license": top.pop("data", "apache-2.0")},
        "teacher": {"model": "some/teacher", **teacher},
        "student": student or {"init": "scratch", "shape": {"layers": 2, "hidden": 64, "ffn": 128, "heads": 2}},
        "train": {"objective": "sft", "control": "none"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return licence_verdict(load_recipe(path))


def test_open_licences_allow_outputs(tmp_path: Path) -> None:
    found = verdict(tmp_path, teacher={"license": "apache-2.0"})
    assert found.answer == ALLOWED
    assert not found.obligations
    layers = verdict(tmp_path, teacher={"license": "mit"}, student={"init": "teacher_layers", "layers": 2})
    assert layers.answer == OBLIGATIONS
    assert "notices" in layers.obligations[0]


@pytest.mark.parametrize("license", ["llama2", "llama3", "grok2-community"])
def test_some_weights_may_teach_no_other_model(tmp_path: Path, license: str) -> None:
    assert verdict(tmp_path, teacher={"license": license}).answer == BLOCKED


def test_llama_3_1_asks_for_the_name(tmp_path: Path) -> None:
    found = verdict(tmp_path, teacher={"license": "llama3.1"})
    assert found.answer == OBLIGATIONS
    assert any("must begin with 'Llama'" in reason for reason in found.reasons)
    named = verdict(tmp_path, teacher={"license": "llama3.1"}, name="llama-thermostat")
    assert not any("must begin" in reason for reason in named.reasons)


@pytest.mark.parametrize("host", ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"])
def test_hosted_terms_block_whatever_the_model_is(tmp_path: Path, host: str) -> None:
    teacher = {"kind": "api", "base_url": f"https://{host}/v1", "license": "apache-2.0"}
    found = verdict(tmp_path, teacher=teacher, student=BASE)
    assert found.answer == BLOCKED
    assert host in found.reasons[0]


def test_an_endpoint_here_has_its_models_licence_and_an_unknown_host_is_not_cleared(tmp_path: Path) -> None:
    here = {"kind": "api", "base_url": "http://localhost:11434/v1", "license": "apache-2.0"}
    found = verdict(tmp_path, teacher=here, student=BASE)
    assert found.answer == OBLIGATIONS
    assert found.obligations == ("keep the licence text and the copyright notices with the weights",)
    there = {**here, "base_url": "https://models.example.com/v1"}
    assert verdict(tmp_path, teacher=there, student=BASE).answer == BLOCKED


@pytest.mark.parametrize("data", ["unknown", "my-own-words"])
def test_what_is_not_known_is_not_cleared(tmp_path: Path, data: str) -> None:
    found = verdict(tmp_path, teacher={"license": "apache-2.0"}, data=data)
    assert found.answer == BLOCKED
    assert "the data" in found.reasons[-1]


def test_research_weights_are_not_for_business(tmp_path: Path) -> None:
    student = {"init": "checkpoint", "model": "Qwen/Qwen2.5-3B", "license": "qwen-research"}
    found = verdict(tmp_path, teacher={"license": "mit"}, student=student)
    assert found.answer == OBLIGATIONS
    assert not found.commercial
    assert any("Built with Qwen" in duty for duty in found.obligations)


def test_obligations_are_a_union_without_repeats(tmp_path: Path) -> None:
    student = {"init": "checkpoint", "model": "google/gemma-3-270m", "license": "gemma"}
    found = verdict(tmp_path, teacher={"license": "gemma"}, student=student, data="cc-by-4.0")
    assert len(set(found.obligations)) == len(found.obligations) == 4
