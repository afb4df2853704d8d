"""What a verdict tells beside its gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.core.files import write_json
from potstill.core.recipe import load_recipe
from potstill.stages.evaluate.answers import JudgedAnswer
from potstill.stages.gate.judgement import judge_run

RECIPE = "name: t\ndata: {prompts: p.jsonl, test: t.jsonl}\nteacher: {model: m}\nstudent: {layers: 1}\n"


def judged(folder: Path, gates: str, student: str, control: str) -> dict[str, Any]:
    """The verdict on two models whose answers are right where a letter is `x`."""
    (folder / "recipe.yaml").write_text(f"{RECIPE}gates: {gates}\n")
    for name, marks in {"student": student, "control": control}.items():
        lines = [
            JudgedAnswer(
                row_id=str(i), behaviour="answer", prompt="", text="", finish_reason="stop", exact=mark == "x",
                parses=True, schema_valid=None, expected="",
            ).model_dump_json()
            for i, mark in enumerate(marks)
        ]  # fmt: skip
        (folder / f"answers-{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    write_json(folder / "metrics.json", {"models": {"gguf": {"fidelity": None}}, "runtime": {}})
    judge_run(load_recipe(folder / "recipe.yaml"), folder, folder)
    return dict(json.loads((folder / "verdict.json").read_text()))


@pytest.mark.parametrize(
    ("student", "control", "says"),
    [
        ("x" * 20, "x" * 8 + "-" * 12, "Better than plain fine-tuning"),
        ("x" * 8 + "-" * 12, "x" * 20, "Worse than plain fine-tuning"),
        ("x" * 12 + "-" * 8, "x" * 11 + "-" * 9, "No better than plain fine-tuning"),
    ],
)
def test_whether_distillation_paid_is_told_without_a_gate_too(
    tmp_path: Path, student: str, control: str, says: str
) -> None:
    found = judged(tmp_path, "{beats_control: false}", student, control)
    assert found["gates"] == []
    assert len(found["notes"]) == 1 and says in found["notes"][0] and "(no gate)" in found["notes"][0]


def test_a_gate_says_it_itself(tmp_path: Path) -> None:
    found = judged(tmp_path, "{beats_control: true}", "x" * 20, "x" * 8 + "-" * 12)
    assert [gate["verdict"] for gate in found["gates"]] == ["PASS"]
    assert found["notes"] == []
