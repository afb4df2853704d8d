"""The rows and the coverage of a run are found by its directory or by its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from fixtures import write_jsonl
from potstill.cli.main import main
from potstill.core.artifacts.coverage import Coverage, CoverageCell
from potstill.core.artifacts.run import RunRecord, StageRun
from potstill.core.files import write_json

CELLS = (
    CoverageCell(of={"label": "refund"}, quota=3, accepted=3, written=2),
    CoverageCell(of={"label": "shipping"}, quota=4, accepted=1, written=5),
)


def potstill(*words: Any) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, words)])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    row = {"messages": [{"role": "user", "content": "money back"}], "gold": {"equals": ["refund"]}}
    write_jsonl(tmp_path / "p.jsonl", [row])
    curriculum = {"format": 1, "id": "c", "version": 1, "task": "t", "axes": {"label": {"refund": 3, "shipping": 4}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(curriculum))
    value = {"name": "r", "data": {"prompts": "p.jsonl", "test": "p.jsonl", "curriculum": "c.yaml"},
             "teacher": {"model": "m/m"}, "student": {"layers": 2}}  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(value))
    return tmp_path / "r.yaml"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two accepted and two rejected rows."""
    folder = tmp_path / "runs" / "r"
    step = folder / "generate-1"
    step.mkdir(parents=True)
    Coverage(curriculum="c@1", rows=4, written=7, cells=CELLS).write(step)
    said = {"messages": [{"role": "user", "content": "money\x1b[2J back"}]}
    answer = {"completion": {"role": "assistant", "content": "refund"}}
    write_jsonl(step / "train.jsonl", [said | answer] * 2)
    wrong = {
        "provenance": {"rejected": "gold", "verify": [{"checker": "gold@1", "verdict": "fail", "evidence": "wrong"}]}
    }
    write_jsonl(step / "rejected.jsonl", [said | answer | wrong, said | {"provenance": {"rejected": "pii"}}])
    (step / "tools.json").write_text("[]")
    stages = {"generate": StageRun(dir="generate-1", seconds=1, cached=False)}
    write_json(folder / RunRecord.FILE, RunRecord(recipe_sha256="0", verdict=None, stages=stages).to_json())
    return folder


def test_coverage_is_that_of_the_run_or_of_the_examples(recipe: Path, run: Path, tmp_path: Path) -> None:
    for path in (run, recipe):
        shown = potstill("coverage", path, "--runs", tmp_path / "runs")
        assert shown.exit_code == 0, shown.output
        assert "label: shipping" in shown.output and "label: shipping lacks 3 of 4" in shown.output
        assert "1 of 2 quotas are met" in shown.output
    before = potstill("coverage", recipe, "--runs", tmp_path / "none")
    assert "0 of 2 quotas are met" in before.output and "Nothing is generated yet" in before.output
    found = json.loads(potstill("coverage", run, "--json").output)
    assert found["accepted"] is True and found["cells"][1]["accepted"] == 1


def test_rejected_rows_are_shown_with_their_reasons(run: Path) -> None:
    shown = potstill("rows", run, "--rejected")
    assert shown.exit_code == 0, shown.output
    assert "1 of 2: gold" in shown.output and "gold@1: fail (wrong)" in shown.output and "2 of 2: pii" in shown.output
    assert "\x1b[2J" not in shown.output and "assistant: refund" in shown.output
    assert "1 of 1: pii" in potstill("rows", run, "--reason", "pii").output
    assert "There are no such rows" in potstill("rows", run, "--reason", "length").output
    assert len(json.loads(potstill("rows", run, "--json").output)["rows"]) == 2


def test_what_is_no_run_is_refused(tmp_path: Path, recipe: Path) -> None:
    for words in (["coverage", tmp_path], ["rows", tmp_path], ["rows", recipe, "--runs", tmp_path / "none"]):
        shown = potstill(*words)
        assert shown.exit_code == 2 and "Traceback" not in shown.output
