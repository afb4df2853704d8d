"""A finished run whose files are damaged: the next run names the file and makes its step again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from damage import WAYS, damage
from finished_run import speed
from potstill.cli.main import main
from potstill.components.runtimes import latency
from potstill.core.artifacts.step import DoneRecord
from potstill.core.errors import StepError
from potstill.core.steps import changed_file
from potstill.pipeline import run as pipeline
from small_recipes import NAME, RECIPES


def potstill(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a recipe and its finished run, by the task. What a test damages, it repairs."""
    made: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(latency, "measure_speed", lambda *args, **kwargs: speed())  # what it measures is not used
                done = potstill("run", RECIPES[task](folder), "--runs", folder / "runs")
            assert done.exit_code in (0, 3, 4), done.output
            made[task] = folder
        return made[task]

    return of


CASES = [
    ("language", "check/check.json", "flip"),
    ("language", "finetune/model/model.safetensors", "flip"),
    ("language", "finetune/summary.json", "truncate"),
    ("language", "generate/train.jsonl", "empty"),
    ("language", "generate/tools.json", "delete"),
    ("language", "targets/store/*.targets", "truncate"),
    ("language", "targets/store/meta.json", "swap"),
    ("language", "train/student/model.safetensors", "flip"),
    ("language", "train/student/tokenizer.json", "truncate"),
    ("language", "train/control/model.safetensors", "empty"),
    ("language", "train/student.log.jsonl", "delete"),
    ("language", "train/step.json", "flip"),
    ("language", "export/*.gguf", "flip"),
    ("language", "export/exported.json", "swap"),
    ("language", "speed/speed.json", "truncate"),
    ("language", "evaluate/metrics.json", "flip"),
    ("language", "evaluate/answers-gguf.jsonl", "swap"),
    ("language", "gate/verdict.json", "flip"),
    ("language", "gate/DONE", "delete"),
    ("language", "package/package/*.gguf", "flip"),
    ("language", "package/package/README.md", "delete"),
    ("language", "report/report.html", "empty"),
    ("classifier", "finetune/model/model.safetensors", "flip"),
    ("classifier", "train/student/config.json", "truncate"),
    ("classifier", "evaluate/metrics.json", "swap"),
    ("classifier", "gate/verdict.json", "flip"),
    ("classifier", "package/package/model.safetensors", "flip"),
]


def makes_nothing(inputs: Any, out: Path) -> None:
    raise StepError("the stage runs again")


@pytest.mark.parametrize(("task", "pattern", "way"), CASES)
def test_a_damaged_file_is_named_and_its_step_made_again(
    finished: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    task: str,
    pattern: str,
    way: str,
) -> None:
    folder, (stage, _, name) = finished(task), pattern.partition("/")
    (step,) = (folder / "runs" / NAME).glob(f"{stage}-*")
    (victim,) = step.glob(name)
    other = next(p for p in sorted(step.rglob("*")) if p.is_file() and p.read_bytes() != victim.read_bytes())
    for stages in ("LANGUAGE_STAGES", "CLASSIFIER_STAGES"):
        idle = tuple(dataclasses.replace(one, run=makes_nothing) for one in getattr(pipeline, stages))
        monkeypatch.setattr(pipeline, stages, idle)
    again = ("run", folder / "recipe.yaml", "--runs", folder / "runs", "--until", stage)
    whole = potstill(*again)
    assert "runs again" not in whole.stderr, whole.stderr
    shutil.copytree(step, tmp_path / "whole")
    try:
        damage(victim, way, other)
        damaged = potstill(*again)
        kept = [path.name for path in step.parent.glob(f"{step.name}.*")]
    finally:
        for left in step.parent.glob(f"{step.name}*"):
            shutil.rmtree(left)
        shutil.copytree(tmp_path / "whole", step)
    assert damaged.exit_code == 1 and "the stage runs again" in damaged.stderr
    assert any(one.name in damaged.stderr for one in (victim, *[other] * (way == "swap")))
    assert kept == [f"{step.name}.changed-1"]


@pytest.mark.parametrize("task", sorted(RECIPES))
def test_no_damage_to_any_file_of_a_run_is_overlooked(finished: Callable[[str], Path], task: str) -> None:
    tried = 0
    for step in sorted((finished(task) / "runs" / NAME).glob("*-*/")):
        mark = DoneRecord.read(step).fingerprint
        files = {path: path.read_bytes() for path in sorted(step.rglob("*")) if path.is_file()}
        for path, data in files.items():
            other = next(one for one in files if files[one] != data)
            for way in WAYS if data else ("delete", "swap"):
                damage(path, way, other)
                problem = changed_file(step, mark)
                for one in (path, other):
                    one.write_bytes(files[one])
                named = (path, other) if way == "swap" else (path,)
                assert problem and any(one.name in problem for one in named), (path, way, problem)
                tried += 1
        assert changed_file(step, mark) is None
    assert tried > 200


@pytest.mark.parametrize("task", sorted(RECIPES))
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_of_a_package_is_named(
    finished: Callable[[str], Path], tmp_path: Path, task: str, way: str
) -> None:
    (package,) = finished(task).glob(f"runs/{NAME}/package-*/package")
    names = sorted(path.name for path in package.iterdir())
    assert potstill("verify", package).exit_code == 0
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        copy = tmp_path / name
        shutil.copytree(package, copy)
        damage(copy / name, way, copy / other)
        refused = potstill("verify", copy)
        assert refused.exit_code == 1
        assert name in refused.stderr or (way == "swap" and other in refused.stderr)
