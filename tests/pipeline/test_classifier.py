"""A recipe with `task: classify`, from rows to a package that answers as it was judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from fixtures import labelled_rows, make_encoder, write_jsonl
from potstill.cli.main import main
from potstill.components.packages.verify import verify_package
from potstill.core.artifacts.metrics import ClassifierMetrics


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT. Do not write into it."""
    return make_encoder(tmp_path_factory.mktemp("encoders") / "bert")


def write_recipe(folder: Path, encoder: Path, **changes: Any) -> Path:
    """A recipe beside its rows; every fourth row is for the test."""
    rows = labelled_rows(["play", "show"])
    write_jsonl(folder / "train.jsonl", [row for n, row in enumerate(rows) if n % 4])
    write_jsonl(folder / "test.jsonl", rows[::4])
    schedule = {"epochs": 20, "batch_tokens": 512, "learning_rate": 3e-3}
    recipe: dict[str, Any] = {
        "name": "intents", "task": "classify",
        "data": {"train": "train.jsonl", "test": "test.jsonl", "out_of_scope": "oos", "context": 40},
        "teacher": {"model": str(encoder), "finetune": schedule},
        "student": {"layers": 2, "vocabulary": 60},
        "train": schedule,
        "trainer": {"checkpoint_every": 1000, "tracker": "none"},
        "evaluate": {"threads": 1, "latency_requests": 20},
        "gates": {"exact": 0.5, "retention": 0.5, "parameters": 0.9, "speedup": 0.01},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes, sort_keys=False))
    return path


def potstill(*words: str | Path) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_from_rows_to_a_package(encoder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = write_recipe(tmp_path, encoder)
    done = potstill("run", path, "--runs", tmp_path / "runs", "--json")
    assert done.exit_code == 0, done.output
    out = json.loads(done.stdout)
    assert list(out["stages"]) == ["check", "finetune", "train", "evaluate", "gate", "package", "report"]
    assert out["verdict"] == "PASS"
    page = Path(out["report"]).read_text()
    for heading in ("Gates", "What was kept, what was lost", "Speed", "Most frequent mistakes", "Where it comes from"):
        assert f">{heading}</h2>" in page
    assert "36 of 36" in page and "http" not in page.replace("http-equiv", "")
    planned = json.loads(potstill("plan", path, "--json").stdout)
    models = ClassifierMetrics.read(Path(out["stages"]["evaluate"]["dir"])).models
    assert planned["teacher_parameters"] == models.teacher.params
    config = json.loads((Path(out["stages"]["train"]["dir"]) / "student" / "config.json").read_text())
    needed = config["vocab_size"] - 60  # the words of the rows are kept, however many the recipe asks for
    assert models.student.params == planned["student_parameters"] + needed * config["hidden_size"]
    printed = potstill("plan", path)
    assert printed.exit_code == 0 and "classes with" in printed.output and "May it ship" in printed.output
    metrics = out["metrics"]
    assert metrics["student_exact"] > 0.9
    assert 0 <= metrics["start_exact"] <= 1
    assert metrics["params_student"] < metrics["params_teacher"]

    package = Path(out["package"])
    assert verify_package(package) == []
    manifest = json.loads((package / "manifest.json").read_text())
    entry = manifest["predicate"]["metrics"]["models"]["student"]
    assert entry["exact"]["n"] == entry["in_scope"]["n"] + entry["out_of_scope"]["n"] == 36
    assert entry["in_scope"]["n"] == 26
    assert str(tmp_path) not in json.dumps(manifest["predicate"])
    assert "**Verdict: PASS.**" in (package / "README.md").read_text()

    # as anyone would load it, it says what was judged
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(package),
        AutoTokenizer.from_pretrained(package),
    )
    answers = Path(out["stages"]["evaluate"]["dir"]) / "answers-student.jsonl"
    for line in answers.read_text().splitlines()[::5]:
        row = json.loads(line)
        inputs = tokenizer(row["text"], return_tensors="pt")
        assert inputs["input_ids"].shape[1] < 12  # not padded to 40, as the teacher's file asks
        with torch.no_grad():
            assert model.config.id2label[int(model(**inputs).logits.argmax())] == row["predicted"]

    again = potstill("run", path, "--runs", tmp_path / "runs")
    assert again.stderr.count("cached") == 7
    assert "accuracy" in again.stdout and "report" in again.stdout


def test_a_finished_classifier_can_be_the_teacher(encoder: Path, tmp_path: Path) -> None:
    first = potstill(
        "run", write_recipe(tmp_path, encoder), "--until", "finetune", "--runs", tmp_path / "runs", "--json"
    )
    teacher = Path(json.loads(first.stdout)["stages"]["finetune"]["dir"]) / "model"
    path = write_recipe(tmp_path, encoder, teacher={"model": str(teacher)}, student={"layers": 1})
    done = json.loads(potstill("run", path, "--until", "gate", "--runs", tmp_path / "runs", "--json").stdout)
    assert "finetune" not in done["stages"]
    judged = potstill("run", path, "--until", "gate", "--runs", tmp_path / "runs")
    assert "better than control (no gate)" in judged.stdout


def test_the_gates_can_fail(encoder: Path, tmp_path: Path) -> None:
    gates = {"exact": 0.5, "parameters": 0.1, "speedup": 1000.0}
    short = {"epochs": 0.2, "batch_tokens": 256, "control": "none"}
    path = write_recipe(tmp_path, encoder, gates=gates, train=short, student={"layers": 4})
    done = potstill("run", path, "--until", "gate", "--runs", tmp_path / "runs", "--json")
    assert done.exit_code == 3
    folder = Path(json.loads(done.stdout)["stages"]["gate"]["dir"])
    found = {g["name"]: g["verdict"] for g in json.loads((folder / "verdict.json").read_text())["gates"]}
    assert found["parameters"] == found["speed-up"] == "FAIL"


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"student": {"layers": 5}}, None, "student.layers: 5 is more than the teacher's 4 layers"),
        ({"teacher": {"model": "ENCODER"}}, None, "set teacher.finetune"),
        ({"task": "translate"}, None, "no task 'translate'. Set task: classify"),
        ({"student": {"layer": 2}}, None, "unknown key 'student.layer'; did you mean 'layers'?"),
        ({"gates": {"beats_control": True}, "train": {"control": "none"}}, None, "needs train.control"),
        ({}, [{"text": "play it", "label": "dance"}], "test.jsonl:1: no row of data.train has the label 'dance'"),
        ({}, [{"text": "", "label": "oos"}], "test.jsonl:1: text"),
        ({"data": {"train": "train.jsonl", "test": "test.jsonl", "context": 65}}, None, "teacher's 64 positions"),
        ({"data": {"train": "train.jsonl", "test": "test.jsonl", "out_of_scope": "x"}}, None, "data.out_of_scope"),
    ],
)
def test_what_cannot_work_costs_nothing(
    encoder: Path, tmp_path: Path, change: dict[str, Any], rows: list[dict[str, Any]] | None, message: str
) -> None:
    if "teacher" in change:
        change = {"teacher": {"model": str(encoder)}}
    path = write_recipe(tmp_path, encoder, **change)
    if rows:
        write_jsonl(tmp_path / "test.jsonl", rows)
    done = potstill("check", path, "--runs", tmp_path / "runs")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "runs" / "intents").exists()


def test_check_says_what_the_rows_are(encoder: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, encoder, data={"train": "train.jsonl", "test": "train.jsonl", "context": 6})
    said = potstill("check", path, "--runs", tmp_path / "runs").stdout
    assert "4 classes" in said
    assert "train: 108 rows of" in said
    assert "108 texts are trained on or used for validation too, " in said
    assert "longer than data.context (6)" in said


def test_verbs_of_language_models_say_so(encoder: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, encoder)
    exported = potstill("run", path, "--until", "export", "--runs", tmp_path / "runs")
    assert exported.exit_code == 2
    assert "no stage export. Its stages are check, finetune, train, evaluate, gate, package" in exported.stderr


def damaged_copy(folder: Path, encoder: Path, name: str, **changes: Any) -> Path:
    """A copy of an encoder, with keys of one JSON file changed."""
    copy = Path(shutil.copytree(encoder, folder / "damaged"))
    path = copy / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))
    return copy


SLOW = {"type": "Split", "pattern": {"Regex": "(l+a*)+z|(y+y*)+z"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"_attn_implementation": "someone/kernels"}, "someone/kernels"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.T"]}}, "no code of a model is run"),
        ("adapter_config.json", {"base_model_name_or_path": "a/b"}, "merge_and_unload"),
        ("config.json", {"num_hidden_layers": "4"}, "num_hidden_layers must be a whole number, found '4'"),
        ("config.json", {"max_position_embeddings": [64]}, "max_position_embeddings must be a whole number"),
        ("config.json", {"id2label": ["a", "b"]}, "id2label must be an object"),
        ("config.json", {"id2label": {"0": 1}}, "id2label must be an object"),
        ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "cannot be read as a tokenizer"),
        ("tokenizer.json", {"pre_tokenizer": SLOW}, "cannot encode this text"),
    ],
)
def test_damaged_teachers_are_refused_by_check(
    encoder: Path, tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path, damaged_copy(tmp_path, encoder, file, **changes))
    write_jsonl(tmp_path / "test.jsonl", [{"text": "y" * 60, "label": "light"}])
    write_jsonl(tmp_path / "train.jsonl", [*labelled_rows(["play"]), {"text": "y" * 60, "label": "light"}])
    checked = potstill("check", path, "--runs", tmp_path / "runs")
    assert checked.exit_code == 2, checked.output
    assert message in " ".join(checked.stderr.split())
    assert potstill("plan", path).exit_code in (0, 2)  # it reads fewer of the keys
