"""`potstill search --measure`: students are trained for a short time, and ranked by their loss on held-out rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from potstill.apps.plan.measured import short_recipe
from potstill.apps.plan.search import SearchOptions, search_students
from potstill.cli.main import main
from potstill.core.artifacts.training import Trained
from potstill.core.recipe import Recipe, load_recipe
from small_recipes import NAME, language_recipe


def search(recipe: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["search", str(recipe), "--device", "Raspberry Pi 5", "--train-on", "Raspberry Pi 5", *options]
    )


def changed(recipe: Path, **sections: dict[str, Any]) -> Path:
    value = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(value | sections))
    return recipe


def test_students_are_trained_on_the_same_answers_and_ranked(tmp_path: Path) -> None:
    recipe = language_recipe(tmp_path)
    before = recipe.read_bytes()
    runs = tmp_path / "runs"
    options = ("--measure", "3", "--share", "0.5", "--runs", str(runs), "--json")
    out = search(recipe, *options)
    assert out.exit_code == 0, out.output
    found = json.loads(out.stdout)
    measured = found["measured"]
    assert len(measured) == 3
    assert [one["loss"] for one in measured] == sorted(one["loss"] for one in measured)
    assert len({one["id"] for one in measured}) == 3
    offered = {row["id"].rpartition("/")[0]: row for row in found["students"]}
    trained = [Trained.read(path) for path in (runs / NAME).glob("train-*")]
    assert {one["loss"] for one in measured} == {
        min(point.loss for point in each.student.validation) for each in trained
    }
    assert all(offered[one["id"]]["parameters"] == one["parameters"] for one in measured)
    assert all(each.control is None for each in trained)
    assert len(list((runs / NAME).glob("generate-*"))) == 1
    assert recipe.read_bytes() == before
    finished = {path: path.stat().st_mtime_ns for path in (runs / NAME).glob("*/DONE")}
    again = search(recipe, *options)
    assert json.loads(again.stdout)["measured"] == measured
    assert {path: path.stat().st_mtime_ns for path in (runs / NAME).glob("*/DONE")} == finished


@pytest.mark.parametrize("sections", [{"gates": {"beats_control": True}}, {"worth": {"ship": "text"}}])
def test_a_recipe_that_needs_a_control_is_measured_without_one(tmp_path: Path, sections: dict[str, Any]) -> None:
    recipe = changed(language_recipe(tmp_path), **sections)
    steps = {}
    for share in ("1", "0.25"):
        out = search(recipe, "--measure", "1", "--share", share, "--runs", str(tmp_path / "runs"), "--json")
        assert out.exit_code == 0, out.output
        steps[share] = json.loads(out.stdout)["measured"][0]["steps"]
    assert 0 < steps["0.25"] <= steps["1"] / 3


def test_a_student_is_checked_in_the_quantization_in_which_it_fits(tmp_path: Path) -> None:
    path = language_recipe(tmp_path)
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe) and recipe.export.quantization == "Q8_0"
    options = SearchOptions(devices=("Raspberry Pi 5",), train_on="Raspberry Pi 5", quantizations=("Q6_K",))
    row = search_students(recipe, "", options).students[0]
    assert short_recipe(path, row, 0.5).export.quantization == "Q6_K"


def test_the_page_shows_the_measured_students(tmp_path: Path) -> None:
    out = search(language_recipe(tmp_path), "--measure", "2", "--share", "0.5", "--runs", str(tmp_path / "runs"))
    assert out.exit_code == 0, out.output
    _, _, table = out.stdout.partition("measured: loss on validation rows")
    assert table.splitlines()[1].split() == ["kept", "loss", "steps", "time", "student"]
    assert len(table.split("\n\n")[0].splitlines()) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--measure", "2", "--share", "0"), "--share 0: give the share of the recipe's training"),
        (("--measure", "2", "--share", "nan"), "--share nan: give the share of the recipe's training"),
        (("--measure", "0"), "--measure"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    out = search(language_recipe(tmp_path), *options)
    assert out.exit_code == 2
    assert said in out.output


def test_it_needs_a_recipe_with_validation_rows(tmp_path: Path) -> None:
    recipe = language_recipe(tmp_path)
    out = CliRunner().invoke(main, ["search", str(tmp_path / "teacher"), "--measure", "2"])
    assert out.exit_code == 2
    assert "--measure needs a recipe" in out.output
    changed(recipe, data={"prompts": "train.jsonl", "test": "test.jsonl", "tools": "tools.json"})
    out = search(recipe, "--measure", "2")
    assert out.exit_code == 2
    assert "set data.validation" in out.output
