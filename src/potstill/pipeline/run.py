"""How a recipe's stages are run, each once. Read this first.

    check -> finetune (if asked) -> generate -> targets (if stored) -> train
    -> export -> evaluate -> gate -> package -> report

Each stage is a function that reads earlier steps' directories and writes into its own. `language_pipeline` says for
each what can change its answer: that is its fingerprint, and a step whose fingerprint is on the disk is not run again.
A recipe with `task: classify` has fewer stages: `classifier_pipeline`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from potstill.core.artifacts.run import RunRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.environment import is_first_process
from potstill.core.errors import UsageError
from potstill.core.files import write_json
from potstill.core.lock import lock_run
from potstill.core.recipe import AnyRecipe, Recipe, recipe_hash
from potstill.core.steps import Done, Stage, StepResult, run_step
from potstill.pipeline.classifier import CLASSIFIER_STAGES
from potstill.pipeline.language import LANGUAGE_STAGES
from potstill.pipeline.legacy import wrapped
from potstill.pipeline.result import RunResult

__all__ = ["STAGES", "RunResult", "run"]

STAGES = tuple(LANGUAGE_STAGES)


def run(
    recipe: AnyRecipe,
    runs: Path,
    until: str | None = None,
    on_step: Callable[[StepResult], None] | None = None,
    variant: str = "",
    on_note: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Run a recipe's stages up to `until`, each once.

    Args:
        recipe: the recipe.
        runs: folder of all runs; this one's is `runs / recipe.name`.
        until: last stage to run; None: all.
        on_step: told of each step as it is finished or found.
        on_note: is told in a sentence when a finished step has changed on disk and runs again.
        variant: one of several recipes of this name (a sweep): its run.json and report.html have this in their names.

    Raises:
        PotstillError: a stage cannot finish; finished steps stay, and the next run goes on from there.
        UsageError: a recipe of this task has no such stage.
    """
    stages: Mapping[str, Any] = LANGUAGE_STAGES if isinstance(recipe, Recipe) else CLASSIFIER_STAGES
    if until is not None and until not in stages:
        raise UsageError(f"a recipe with task: classify has no stage {until}; its stages are {', '.join(stages)}.")
    result = RunResult(runs / recipe.name, variant)
    with lock_run(result.dir):
        for stage in stages:
            entry = stages[stage]
            declared = entry if isinstance(entry, Stage) else wrapped(stage, entry(recipe, result), result.steps)
            inputs = declared.inputs(recipe, Done(result.steps, declared.reads))
            if inputs is not None:
                result.steps[stage] = run_step(declared, inputs, result.dir, result.steps, on_note)
                if declared.confirm and is_first_process():
                    for warning in declared.confirm(result.folder(stage), result.dir):
                        on_note(warning)
                if on_step:
                    on_step(result.steps[stage])
                _write_run_json(recipe, result)
            if stage == until:
                break
    return result


def _write_run_json(recipe: AnyRecipe, result: RunResult) -> None:
    """The one page that says what this run is; rewritten as each step ends."""
    if "gate" in result.steps:
        result.verdict = Verdict.read(result.folder("gate")).verdict
    if not is_first_process():
        return
    if "report" in result.steps:
        shutil.copyfile(result.folder("report") / "report.html", result.page("report.html"))
    record = RunRecord(recipe_sha256=recipe_hash(recipe), verdict=result.verdict, stages=result.stages(absolute=False))
    write_json(result.page(RunRecord.FILE), record.to_json())
