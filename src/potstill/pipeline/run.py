"""How a recipe's stages are run, each once. Read this first.

    check -> finetune (if asked) -> generate -> targets (if stored) -> train
    -> worth (other rungs) -> export -> speed -> evaluate -> gate -> package -> report

Each stage declares its inputs (`potstill.core.steps.Stage`). `language.py` and `classifier.py` list the stages of each
task in order. A step whose inputs are the same as those of a finished one is not run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.core.artifacts.run import RunRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.environment import is_first_process
from potstill.core.errors import UsageError
from potstill.core.files import replacing, write_json
from potstill.core.lock import lock_run
from potstill.core.recipe import AnyRecipe, Recipe, recipe_hash
from potstill.core.steps import Done, Stage, StepResult, run_step
from potstill.pipeline.classifier import CLASSIFIER_STAGES
from potstill.pipeline.language import LANGUAGE_STAGES
from potstill.pipeline.result import RunResult

__all__ = ["RunResult", "run", "stages_of"]


def stages_of(recipe: AnyRecipe) -> tuple[Stage[Any, Any], ...]:
    """The stages of a recipe's task, in order."""
    return LANGUAGE_STAGES if isinstance(recipe, Recipe) else CLASSIFIER_STAGES


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
        on_step: is called with each step, once it has finished or has been found finished.
        on_note: is called with a sentence when a finished step has changed on disk, and with each warning.
        variant: one of several recipes of this name (a sweep): its run.json and report.html have this in their names.

    Raises:
        PotstillError: a stage cannot finish; finished steps stay, and the next run goes on from there.
        UsageError: a recipe of this task has no such stage.
    """
    stages = stages_of(recipe)
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        raise UsageError(f"A recipe with task: classify has no stage {until}. Its stages are {', '.join(names)}.")
    result = RunResult(runs / recipe.name, variant)
    with lock_run(result.dir):
        for stage in stages:
            inputs = stage.inputs(recipe, Done(result.steps, stage.reads))
            if inputs is not None:
                step = run_step(stage, inputs, result.dir, result.steps, on_note)
                result.steps[stage.name] = step
                if stage.confirm and is_first_process():
                    for warning in stage.confirm(step.dir, result.dir):
                        on_note(warning)
                if on_step:
                    on_step(step)
                _write_run_json(recipe, result)
            if stage.name == until:
                break
    return result


def _write_run_json(recipe: AnyRecipe, result: RunResult) -> None:
    """Write run.json, and copy the report to the run's directory; done again as each step ends."""
    if "gate" in result.steps:
        result.verdict = Verdict.read(result.folder("gate")).verdict
    if not is_first_process():
        return
    if "report" in result.steps:
        with replacing(result.page("report.html")) as temporary:
            shutil.copyfile(result.folder("report") / "report.html", temporary)
    record = RunRecord(recipe_sha256=recipe_hash(recipe), verdict=result.verdict, stages=result.stages(absolute=False))
    write_json(result.page(RunRecord.FILE), record.to_json())
