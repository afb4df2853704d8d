"""Licence verdicts: every entry of the table, and nothing unknown is cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.components.licences.licences import (
    ALLOWED,
    BLOCKED,
    OBLIGATIONS,
    Chain,
    LicenceVerdict,
    Terms,
    licence_verdict,
    load_terms,
)
from potstill.components.licences.notice import licence_notice
from potstill.core.recipe import load_recipe

BASE = {"init": "checkpoint", "model": "Qwen/Qwen3-0.6B", "license": "apache-2.0"}


def verdict(tmp_path: Path, *, teacher: dict[str, Any], student: dict[str, Any] | None = None, **top: Any) -> Any:
    """The verdict on a recipe; the "license" of teacher and student is theirs in `licenses`."""
    student = student or {"init": "scratch", "shape": "llama:layers=2,hidden=64,ffn=128,heads=2"}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    recipe = {
        "name": top.pop("name", "try"),
        "data": {"prompts": "rows.jsonl", "test": "rows.jsonl"},
        "teacher": {"model": "some/teacher", **{k: v for k, v in teacher.items() if k != "license"}},
        "student": {k: v for k, v in student.items() if k != "license"},
        "train": {"objective": "sft"},
        "licenses": {"data": top.pop("data", "apache-2.0")}
        | {name: part["license"] for name, part in (("teacher", teacher), ("student", student)) if "license" in part},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return licence_verdict(load_recipe(path))


def test_open_licences_allow_outputs_and_ask_for_their_text_beside_what_is_passed_on(tmp_path: Path) -> None:
    found = verdict(tmp_path, teacher={"license": "cc0-1.0"})
    assert found.answer == ALLOWED
    assert not found.obligations
    for student in ({"init": "teacher_layers", "layers": 2}, None):
        # a student from scratch has the teacher's tokenizer
        passed_on = verdict(tmp_path, teacher={"license": "mit"}, student=student)
        assert passed_on.answer == OBLIGATIONS
        assert "notices" in passed_on.obligations[0]


# what the texts say: outputs may train another model; commercial use; a word of one obligation
TERMS = {
    "apache-2.0": (True, True, "notices"),
    "cc-by-4.0": (True, True, "name the source"),
    "cc-by-sa-4.0": (True, True, "same licence"),
    "cc-by-nc-4.0": (True, False, "name the source"),
    "cc-by-nc-sa-4.0": (True, False, "same licence"),
    "llama3.1": (True, True, "Built with Llama"),
    "llama3.2": (True, True, "700 million"),
    "llama3.3": (True, True, "acceptable use"),
    "llama4": (True, True, 'with "Llama"'),
    "gemma": (True, True, "use restrictions"),
    "qwen": (True, True, "Built with Qwen"),
    "qwen-research": (True, False, "Built with Qwen"),
    "mrl": (True, False, "research only"),
    "deepseek": (True, True, "Attachment A"),
    "llama2": (False, True, ""),
    "llama3": (False, True, ""),
    "grok2-community": (False, True, ""),
}


@pytest.mark.parametrize("tag", TERMS)
def test_each_licence_of_a_teacher(tmp_path: Path, tag: str) -> None:
    outputs, business, duty = TERMS[tag]
    found = verdict(tmp_path, teacher={"license": tag}, name="llama-3-thermostat")
    assert (found.answer == BLOCKED) is not outputs
    assert bool(found.problems) is not outputs
    if outputs:
        assert found.commercial is business
        assert any(duty in one for one in found.obligations)


@pytest.mark.parametrize(("tag", "name"), [("llama2", "try"), ("llama3", "llama-3-try")])
def test_llama_may_teach_what_is_made_of_itself(tmp_path: Path, tag: str, name: str) -> None:
    layers = verdict(tmp_path, teacher={"license": tag}, student={"init": "teacher_layers", "layers": 2}, name=name)
    assert layers.answer == OBLIGATIONS
    other = {"init": "checkpoint", "model": "some/base", "license": "apache-2.0"}
    assert verdict(tmp_path, teacher={"license": tag}, student=other, name=name).answer == BLOCKED


def test_a_use_that_the_terms_do_not_speak_of_is_not_cleared(tmp_path: Path) -> None:
    # terms of an endpoint say nothing of weights
    chain = Chain(None)
    chain.add("the weights", Terms(source="a page", entered="2026-11", outputs="allowed"), "some terms", "weights")
    assert chain.blocked and chain.problems


def test_two_names_at_once_are_a_conflict_unless_one_is_in_the_other(tmp_path: Path) -> None:
    llama3 = {"init": "checkpoint", "model": "meta-llama/Meta-Llama-3-8B", "license": "llama3"}
    both = verdict(tmp_path, teacher={"license": "llama3.1"}, student=llama3, name="Llama-3-of-ours")
    assert both.answer == OBLIGATIONS
    assert not any("must begin" in reason for reason in both.reasons)
    from potstill.components.licences import licences

    falcon = Terms(
        source="s", entered="2026-11", tags=("falconlike",), name_prefix="Falcon", obligations=("x",),
        outputs="obligations", weights="obligations",
    )  # fmt: skip
    rows = (*load_terms(), falcon)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(licences, "load_terms", lambda: rows)
        found = verdict(tmp_path, teacher={"license": "llama3.1"}, student={**llama3, "license": "falconlike"})
    assert found.answer == BLOCKED
    assert "require different names at once" in found.problems[0]


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
    for own in ("http://192.168.1.20:8000/v1", "http://[::1]:8000/v1", "http://gpu-box:8000/v1", "http://box.local/v1"):
        assert verdict(tmp_path, teacher={**here, "base_url": own}, student=BASE).answer == OBLIGATIONS
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


def test_the_licence_file_names_each_duty() -> None:
    verdict = LicenceVerdict(OBLIGATIONS, commercial=False, obligations=("name the source", "pass the licence on"))
    text = licence_notice({"This model": "mit", "The teacher, T": "unknown"}, verdict)
    assert "This model: mit\n" in text and "The teacher" not in text
    for duty in (*verdict.obligations, "use it for non-commercial purposes only"):
        assert f"- {duty}\n" in text
    assert "must:" not in licence_notice({"This model": "mit"}, LicenceVerdict(ALLOWED))
    assert licence_notice({"This model": "unknown"}, verdict) == ""


def test_a_classifier_is_judged_by_its_teacher_and_its_data(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    recipe: dict[str, Any] = {
        "name": "intents",
        "task": "classify",
        "data": {"train": "rows.jsonl", "test": "rows.jsonl"},
        "teacher": {"model": "some/encoder"},
        "student": {"layers": 2},
        "licenses": {"teacher": "mit", "data": "cc-by-4.0"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    found = licence_verdict(load_recipe(path))
    assert found.answer == OBLIGATIONS and "name the source" in found.obligations
    path.write_text(yaml.safe_dump(recipe | {"licenses": {"teacher": "mit"}}))
    assert licence_verdict(load_recipe(path)).answer == BLOCKED
