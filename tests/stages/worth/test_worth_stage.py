"""The other rungs of the ladder: what each learns from, how long, and with which seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finished_run import summary, write_exported
from fixtures import light_rows, make_model, read_log, write_jsonl
from potstill.core.artifacts.training import TrainedRungs
from potstill.core.recipe import Recipe
from potstill.stages.evaluate import stage as evaluate
from potstill.stages.export import stage as export
from potstill.stages.train import stage as train
from potstill.stages.worth import stage as worth
from stage_runs import run_stage, stage_inputs


@pytest.fixture
def recipe(tmp_path: Path, workload: Path) -> dict[str, Any]:
    """A recipe whose student adds hidden states, so that every rung is trained."""
    teacher = make_model(tmp_path / "teacher", context=256)
    base = make_model(tmp_path / "base", layers=2, seed=1, context=256)
    labelled = [row for row in light_rows(["", "now "]) if "kitchen" in json.dumps(row)]
    return {
        "name": "lights",
        "data": {
            "prompts": str(workload / "train.jsonl"),
            "test": str(workload / "test.jsonl"),
            "labelled": str(write_jsonl(tmp_path / "labelled.jsonl", labelled)),
        },
        "chat": {"context": 256},
        "teacher": {"model": str(teacher)},
        "student": {"init": "checkpoint", "model": str(base)},
        "train": {"epochs": 2, "batch_tokens": 512, "objective": {"hidden": {}}},
        "trainer": {"tracker": "none"},
    }


def run_worth(recipe: dict[str, Any], workload: Path, out: Path) -> tuple[Path, TrainedRungs, Path]:
    """Train the student and the other rungs; the folders of both steps, and what the rungs' trainings did."""
    model = Recipe.model_validate(recipe)
    steps = {"generate": workload}
    run_stage(train.STAGE, model, steps, out / "train")
    run_stage(worth.STAGE, model, steps | {"train": out / "train"}, out / "worth")
    return out / "train", TrainedRungs.read(out / "worth"), out / "worth"


def test_each_rung_learns_from_what_it_is_named_after(recipe: dict[str, Any], workload: Path, tmp_path: Path) -> None:
    trained, found, folder = run_worth(recipe, workload, tmp_path)
    student, control = read_log(trained), read_log(trained, "control")
    assert list(found.models) == ["labels", "distributions"]
    assert {model.steps for model in found.models.values()} == {len(student)}
    labels, distributions = read_log(folder, "labels"), read_log(folder, "distributions")
    assert "hidden" not in distributions[0] or distributions[0]["hidden"] is None
    assert distributions[0]["divergence"] > 0
    assert labels[0]["divergence"] == 0  # no teacher
    # the same start and the same first batch as the student, without its hidden states
    assert distributions[0]["divergence"] == pytest.approx(student[0]["divergence"], rel=1e-5)
    assert labels[0]["cross_entropy"] != control[0]["cross_entropy"]
    assert found.labelled_rows == len(Path(recipe["data"]["labelled"]).read_text().splitlines())


def test_later_seeds_train_every_rung(recipe: dict[str, Any]) -> None:
    recipe["worth"] = {"seeds": 3, "rungs": ["text", "distributions"]}
    assert list(Recipe.model_validate(recipe).worth_models) == [
        "distributions", "text-2", "distributions-2", "recipe-2", "text-3", "distributions-3", "recipe-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "models"),
    [
        ({"train": {"objective": "sft"}}, ["labels"]),
        ({"train": {"objective": "forward_kl"}}, ["labels"]),
        ({"worth": {"rungs": ["start"]}}, []),
        ({"worth": {"budget": "seconds"}}, ["labels", "text", "distributions"]),
        ({"worth": {"budget": "seconds"}, "train": {"control": "none"}}, ["labels"]),
        ({"generate": {"samples": 0}, "data": None}, ["distributions"]),
    ],
)  # fmt: skip
def test_only_what_the_train_stage_has_not_trained(
    recipe: dict[str, Any], changes: dict[str, Any], models: list[str], workload: Path, tmp_path: Path
) -> None:
    if "data" in changes:
        changes = {**changes, "data": {key: path for key, path in recipe["data"].items() if key != "labelled"}}
    model = Recipe.model_validate(recipe | changes)
    assert list(model.worth_models) == models
    if not models:
        (tmp_path / "train").mkdir()
        assert stage_inputs(worth.STAGE, model, {"generate": workload, "train": tmp_path / "train"}) is None


def test_equal_seconds_give_the_cheaper_rung_more_steps(recipe: dict[str, Any], workload: Path, tmp_path: Path) -> None:
    recipe["worth"] = {"budget": "seconds", "rungs": ["labels"]}
    recipe["train"]["epochs"] = 1
    trained, found, folder = run_worth(recipe, workload, tmp_path)
    summary = json.loads((trained / "summary.json").read_text())["student"]
    trial = json.loads((folder / "labels.trial.summary.json").read_text())
    assert found.models["labels"].steps == max(1, round(summary["seconds"] * trial["steps"] / trial["seconds"]))
    assert not (folder / "labels.trial").exists()


def test_rows_without_an_answer_teach_nothing(recipe: dict[str, Any], workload: Path, tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key not in ("completion", "gold")} for row in light_rows([""])]
    del recipe["data"]["labelled"]
    recipe["data"]["prompts"] = str(write_jsonl(tmp_path / "bare.jsonl", bare))
    recipe["worth"] = {"rungs": ["labels"]}
    _, found, folder = run_worth(recipe, workload, tmp_path)
    assert (found.models, found.labelled_rows) == ({}, 0)
    assert not (folder / "labels").exists()


def shipped(recipe: dict[str, Any], ship: str | None, tmp_path: Path) -> Any:
    """The inputs of evaluate for a rung that ships, over folders that stand for the finished steps."""
    write_exported(tmp_path / "export", "lights-Q8_0.gguf")
    trained = summary(0.1, divergence=True)
    TrainedRungs(models={"labels": trained, "distributions": trained}, labelled_rows=4).write(tmp_path / "worth")
    model = Recipe.model_validate(recipe | {"worth": {"ship": ship}})
    steps = {name: tmp_path / name for name in ("train", "worth", "export", "generate")}
    for stage in (evaluate.STAGE, export.STAGE):
        yield stage_inputs(stage, model, steps)


@pytest.mark.parametrize(
    ("ship", "student", "others", "has_control"),
    [
        (None, "train/student", {"labels", "distributions"}, True),
        ("text", "train/control", {"labels", "distributions", "recipe"}, False),
        ("distributions", "worth/distributions", {"labels", "recipe"}, True),
    ],
)
def test_the_rung_that_ships_is_exported_and_judged(
    recipe: dict[str, Any], tmp_path: Path, ship: str | None, student: str, others: set[str], has_control: bool
) -> None:
    for name in ("train/student", "train/control", "train/start", "worth/labels", "worth/distributions", "export"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "weights").write_text(name)
    for name in ("train/summary.json", "generate/train.jsonl", "generate/validation.jsonl", "generate/tools.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    judged, exported = shipped(recipe, ship, tmp_path)
    assert judged.student.path == exported.student.path == tmp_path / student
    assert set(judged.rungs) == others
    assert (judged.control is not None) is has_control
    assert judged.student_rung == (ship or "recipe")
    if ship:
        assert judged.rungs["recipe"].path == tmp_path / "train" / "student"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worth": {"ship": "text"}, "train": {"control": "none"}}, "trains no such rung"),
        ({"worth": {"ship": "distributions", "rungs": ["text"]}}, "trains no such rung"),
        ({"worth": {"ship": "text"}, "gates": {"beats_control": True}}, "ships the control itself"),
    ],
)
def test_a_rung_that_is_not_trained_cannot_ship(recipe: dict[str, Any], changes: Any, message: str) -> None:
    if "train" in changes:
        changes = changes | {"train": recipe["train"] | changes["train"]}
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe | changes)
