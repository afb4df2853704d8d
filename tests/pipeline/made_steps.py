"""Recipes with finished steps made by hand, to ask which stages a change of the recipe runs again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finished_run import summary, write_exported
from fixtures import light_rows, make_model, write_jsonl
from potstill.core.artifacts.step import DoneRecord, StepRecord
from potstill.core.artifacts.training import TrainedRungs
from potstill.core.hashing import hash_file
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.steps import Done, StepResult, read_step, step_fingerprint
from potstill.pipeline.run import stages_of

# what each step leaves, as far as other stages take it in
FILES = {
    "check": ("check.json",),
    "finetune": ("model/config.json", "model/model.safetensors"),
    "generate": ("summary.json", "train.jsonl", "validation.jsonl", "tools.json", "rejected.jsonl",
                 "train.tokens.jsonl", "validation.tokens.jsonl"),
    "targets": ("summary.json", "store/meta.json"),
    "train": ("summary.json", "student.log.jsonl", "control.log.jsonl", "start/config.json", "student/config.json",
              "control/config.json"),
    "worth": ("labels/config.json", "distributions/config.json"),
    "export": (),
    "speed": ("speed.json",),
    "evaluate": ("metrics.json", *(f"answers-{name}.jsonl" for name in ("teacher", "student", "control", "gguf"))),
    "gate": ("verdict.json",),
    "package": ("package/manifest.json", "package/README.md"),
    "report": ("report.html",),
}  # fmt: skip


def _made_step(run: Path, stage: str) -> StepResult:
    folder = run / f"{stage}-made"
    for name in FILES[stage]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{stage} {name}")
    if stage == "export":
        folder.mkdir(parents=True, exist_ok=True)
        write_exported(folder, "made-Q8_0.gguf")
    if stage == "worth":
        done = summary(0.1, divergence=True)
        TrainedRungs(models={"labels": done, "distributions": done}, labelled_rows=4).write(folder)
    StepRecord(
        stage=stage, stage_version=1, fingerprint="0" * 64, inputs={}, reads={}, versions={}, git_commit=None, argv=[],
        host={}, finished="2026-11-28T00:00:00+00:00", seconds=1.0,
    ).write(folder)  # fmt: skip
    files = {p.relative_to(folder).as_posix(): hash_file(p) for p in folder.rglob("*") if p.is_file()}
    DoneRecord.of("0" * 64, files).write(folder)
    return read_step(folder)


class MadeRun:
    """Recipes of several kinds in one folder, and finished steps to go with each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[str, dict[str, str | None]] = {}
        self._steps: dict[tuple[str, str], StepResult] = {}
        make_model(folder / "teacher")
        for seed, name in enumerate(("other", "base")):
            make_model(folder / name, layers=2, seed=seed)
        for name, polite in (("train", ["", "please "]), ("validation", ["now "]), ("test", ["kindly "])):
            write_jsonl(folder / f"{name}.jsonl", light_rows(polite))
            write_jsonl(folder / f"labelled-{name}.jsonl", [{"text": f"{name} {i}", "label": str(i)} for i in range(4)])
        (folder / "tools.json").write_text("[]")
        (folder / "plain.jinja").write_text("{{ messages[0].content }}")

    def fingerprints(self, value: Mapping[str, Any], change: tuple[str, str] | None = None) -> dict[str, str | None]:
        """Fingerprint of each stage; None for a stage that the recipe does not have.

        Args:
            value: the recipe.
            change: a dotted key and its new value, as YAML.
        """
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(dict(value)))
        recipe = load_recipe(path, dict([change]) if change else None)
        found: dict[str, str | None] = {}
        steps: dict[str, StepResult] = {}
        for stage in stages_of(recipe):
            inputs = stage.inputs(recipe, Done(steps, stage.reads))
            found[stage.name] = None if inputs is None else step_fingerprint(stage, inputs)
            if inputs is not None:
                steps[stage.name] = self._step("language" if isinstance(recipe, Recipe) else "classifier", stage.name)
        return found

    def _step(self, kind: str, stage: str) -> StepResult:
        """The finished step of a stage, which is the same for all recipes of a kind."""
        if (kind, stage) not in self._steps:
            self._steps[kind, stage] = _made_step(self.folder / "runs" / kind, stage)
        return self._steps[kind, stage]

    def rerun(self, value: Mapping[str, Any], key: str, changed: str) -> set[str]:
        """Stages whose own inputs differ once a key has another value."""
        whole = repr(value)
        if whole not in self._before:
            self._before[whole] = self.fingerprints(value)
        before, after = self._before[whole], self.fingerprints(value, (key, changed))
        return {name for name in before | after if before.get(name) != after.get(name)}
