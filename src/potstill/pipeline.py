"""The stages in order. Read this first.

    check -> finetune (if asked) -> generate -> targets (if stored) -> train
    -> export -> evaluate -> gate -> package -> report

A recipe with `task: classify` has fewer: `potstill.classifier_pipeline`.

Each stage is a function that reads earlier steps' directories and writes into its own. What can change its answer is
named here, beside the call: that is its fingerprint, and a step whose fingerprint is on the disk is not run again. A
stage that a recipe has none of gives None.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from potstill import evaluate, export, generate, package, plan, report, train
from potstill.chat import resolve_model
from potstill.classifier_pipeline import CLASSIFIER_STAGES
from potstill.costs import find_price
from potstill.errors import UsageError
from potstill.recipe import AnyRecipe, Recipe, recipe_hash
from potstill.records import write_json
from potstill.steps import (
    RunResult,
    StepPlan,
    StepResult,
    hash_file,
    hash_model,
    is_first_process,
    lock_run,
    run_step,
    section_parts,
)

__all__ = ["STAGES", "RunResult", "run"]

STAGES = ("check", "finetune", "generate", "targets", "train", "export", "evaluate", "gate", "package", "report")
# under `accelerate launch` all processes share these; the first runs the others alone
_TOGETHER = ("finetune", "train")


def _hash(path: Path | None) -> str | None:
    return hash_file(path) if path else None


def _base_model(recipe: Recipe) -> Path | None:
    return resolve_model(recipe.student.model) if recipe.student.model else None


def run(
    recipe: AnyRecipe,
    runs: Path,
    until: str | None = None,
    on_step: Callable[[StepResult], None] | None = None,
    variant: str = "",
) -> RunResult:
    """Run a recipe's stages up to `until`, each once.

    Args:
        recipe: the recipe.
        runs: folder of all runs; this one's is `runs / recipe.name`.
        until: last stage to run; None: all.
        on_step: told of each step as it is finished or found.
        variant: one of several recipes of this name (a sweep): its run.json and report.html have this in their names.

    Raises:
        PotstillError: a stage cannot finish; finished steps stay, and the next run goes on from there.
        UsageError: a recipe of this task has no such stage.
    """
    stages: Mapping[str, Any] = _STAGES if isinstance(recipe, Recipe) else CLASSIFIER_STAGES
    if until is not None and until not in stages:
        raise UsageError(f"a recipe with task: classify has no stage {until}; its stages are {', '.join(stages)}.")
    result = RunResult(runs / recipe.name, variant)
    with lock_run(result.dir):
        for stage in stages:
            planned: StepPlan | None = stages[stage](recipe, result)
            if planned is not None:
                parts, upstream, build = planned
                read = {name: result.steps[name] for name in upstream if name in result.steps}
                result.steps[stage] = run_step(result.dir, stage, parts, read, build, together=stage in _TOGETHER)
                if on_step:
                    on_step(result.steps[stage])
                _write_run_json(recipe, result)
            if stage == until:
                break
    return result


def _teacher_folder(recipe: Recipe, done: RunResult) -> Path | None:
    """Weights of the teacher: the fine-tuned one if there is one, None for an endpoint."""
    if recipe.teacher.kind == "api":
        return None
    return (
        done.folder("finetune") / "model"
        if "finetune" in done.steps
        else resolve_model(recipe.teacher.model, recipe.teacher.revision)
    )


def _check(recipe: Recipe, done: RunResult) -> StepPlan:
    parts = {"version": plan.VERSION, "recipe": recipe_hash(recipe), "inputs": _inputs(recipe)}
    return parts, (), partial(plan.check, recipe, done.dir)


def _inputs(recipe: Recipe) -> dict[str, Any]:
    """Content hashes of everything the recipe points at; a missing file is told by the check itself."""
    data, finetune = recipe.data, recipe.teacher.finetune
    paths = [data.prompts, data.validation, data.test, data.tools, finetune.rows if finetune else None]
    return {str(i): hash_file(p) if p and p.is_file() else None for i, p in enumerate(paths)}


def _finetune(recipe: Recipe, done: RunResult) -> StepPlan | None:
    settings = recipe.teacher.finetune
    if settings is None:
        return None
    base = resolve_model(recipe.teacher.model, recipe.teacher.revision, weights=settings.shape is None)
    parts = {
        "version": train.VERSION,
        "settings": section_parts(settings, "rows"),
        "rows": hash_file(settings.rows),
        "validation": _hash(recipe.data.validation),
        "tools": _hash(recipe.data.tools),
        "base": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    return parts, (), partial(train.finetune, recipe, base)


def _chat(recipe: Recipe) -> dict[str, Any]:
    """Template settings; a template file counts by its content."""
    file = Path(recipe.chat.template)
    return section_parts(recipe.chat, "template", "tool_format") | {
        "template": hash_file(file) if file.is_file() else recipe.chat.template
    }


def _generate(recipe: Recipe, done: RunResult) -> StepPlan:
    folder, base = _teacher_folder(recipe, done), _base_model(recipe)
    parts = {
        "version": generate.VERSION,
        "settings": section_parts(recipe.generate),
        "prompts": hash_file(recipe.data.prompts),
        "limit": recipe.data.limit,
        "validation": _hash(recipe.data.validation),
        "tools": _hash(recipe.data.tools),
        "teacher": section_parts(recipe.teacher, "finetune", "max_concurrency", "api_key_env", "model"),
        "weights": hash_model(folder) or recipe.teacher.model,
        # rows that the student could not read whole are set aside
        "reader": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    return parts, ("finetune",), partial(generate.run, recipe, folder, base)


def _targets(recipe: Recipe, done: RunResult) -> StepPlan | None:
    if recipe.train.targets.kind == "online":
        return None
    folder = _teacher_folder(recipe, done)
    assert folder is not None  # the recipe refuses an endpoint here
    parts = {
        "version": train.VERSION,
        "settings": section_parts(recipe.train.targets),
        "temperature": recipe.train.temperature,
        "weights": hash_model(folder),
        "dtype": recipe.teacher.dtype,
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    upstream = ("finetune", "generate")
    return parts, upstream, partial(train.store_targets, recipe, folder, done.folder("generate"))


def _train(recipe: Recipe, done: RunResult) -> StepPlan:
    folder, base = _teacher_folder(recipe, done), _base_model(recipe)
    targets = done.folder("targets") if "targets" in done.steps else None
    parts = {
        "version": train.VERSION,
        "settings": section_parts(recipe.train, "tracker"),
        "student": section_parts(recipe.student, "model"),
        "base": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    upstream = ("finetune", "generate", "targets")
    return parts, upstream, partial(train.run, recipe, folder, base, done.folder("generate"), targets)


def _export(recipe: Recipe, done: RunResult) -> StepPlan:
    parts = {
        "version": export.VERSION,
        "settings": section_parts(recipe.export),
        "name": recipe.name,
        "chat": _chat(recipe),
    }
    return parts, ("generate", "train"), partial(export.run, recipe, done.folder("train"), done.folder("generate"))


def _evaluate(recipe: Recipe, done: RunResult) -> StepPlan:
    folders = {name: done.folder(name) for name in ("train", "generate", "export")}
    parts = {
        "version": evaluate.VERSION,
        "settings": section_parts(recipe.evaluate),
        "test": hash_file(recipe.data.test),
        "test_limit": recipe.data.test_limit,
        "tools": _hash(recipe.data.tools),
        "answers": section_parts(recipe.generate),
        "tool_format": recipe.chat.tool_format,
    }
    return parts, tuple(folders), partial(evaluate.run, recipe, _teacher_folder(recipe, done), folders)


def _gate(recipe: Recipe, done: RunResult) -> StepPlan:
    parts = {"version": evaluate.VERSION, "gates": section_parts(recipe.gates), "target": section_parts(recipe.target)}
    return parts, ("evaluate",), partial(evaluate.gate, recipe, done.folder("evaluate"))


def _package(recipe: Recipe, done: RunResult) -> StepPlan:
    folders = {name: step.dir for name, step in done.steps.items()}
    parts = {"version": package.VERSION, "recipe": recipe_hash(recipe)}
    return parts, STAGES[1 : STAGES.index("package")], partial(package.run, recipe, folders)


def _report(recipe: Recipe, done: RunResult) -> StepPlan:
    folders = {name: step.dir for name, step in done.steps.items()}
    price = find_price(recipe.teacher)
    parts = {"version": report.VERSION, "recipe": recipe_hash(recipe), "price": asdict(price) if price else None}
    return parts, STAGES[1 : STAGES.index("report")], partial(report.run, recipe, folders)


_STAGES: dict[str, Callable[[Recipe, RunResult], StepPlan | None]] = {
    "check": _check, "finetune": _finetune, "generate": _generate, "targets": _targets, "train": _train,
    "export": _export, "evaluate": _evaluate, "gate": _gate, "package": _package, "report": _report,
}  # fmt: skip


def _write_run_json(recipe: AnyRecipe, result: RunResult) -> None:
    """The one page that says what this run is; rewritten as each step ends."""
    if "gate" in result.steps:
        result.verdict = json.loads((result.folder("gate") / "verdict.json").read_text())["verdict"]
    if not is_first_process():
        return
    if "report" in result.steps:
        shutil.copyfile(result.folder("report") / "report.html", result.page("report.html"))
    steps = {name: {"dir": s.dir.name, "seconds": s.seconds, "cached": s.cached} for name, s in result.steps.items()}
    write_json(
        result.page("run.json"), {"recipe_sha256": recipe_hash(recipe), "verdict": result.verdict, "stages": steps}
    )
