"""Run one stage by itself, on folders that stand for the finished steps before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.core.hashing import hash_file
from potstill.core.steps import Done, Stage, StepResult, blanked


def finished_step(name: str, folder: Path) -> StepResult:
    """A folder as a finished step."""
    files = {p.relative_to(folder).as_posix(): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    return StepResult(name, folder, "0" * 64, 1.0, cached=True, files=files)


def stage_inputs(stage: Stage[Any, Any], recipe: Any, folders: dict[str, Path]) -> Any:
    """A stage's inputs, from folders by the name of the stage they stand for."""
    steps = {name: finished_step(name, folder) for name, folder in folders.items()}
    return stage.inputs(recipe, Done(steps, stage.reads))


def run_stage(stage: Stage[Any, Any], recipe: Any, folders: dict[str, Path], out: Path) -> None:
    """Run a stage into `out`, with inputs as a pipeline hands them over."""
    out.mkdir(parents=True, exist_ok=True)
    stage.run(blanked(stage_inputs(stage, recipe, folders)), out)
