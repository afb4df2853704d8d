"""What the generate step of a run left, found by the run's directory or by the recipe."""

from __future__ import annotations

from pathlib import Path

from potstill.components.curriculum.coverage import coverage_of
from potstill.components.curriculum.spec import Curriculum
from potstill.core.artifacts.coverage import Coverage
from potstill.core.artifacts.generated import REJECTED, TOOLS, read_generated, rows_file
from potstill.core.artifacts.run import RunRecord
from potstill.core.errors import RecipeError, UsageError
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.records import Row, read_rows

__all__ = ["find_coverage", "find_generated", "find_rows"]


def find_generated(path: Path, runs: Path) -> Path | None:
    """Directory of the generate step; None for a recipe that has not generated yet.

    Args:
        path: a run's directory, or a recipe.
        runs: folder of all runs, for a recipe.

    Raises:
        UsageError: the directory is not a run, or the run has no generate step.
    """
    run = path if path.is_dir() else runs / load_recipe(path).name
    if not (run / RunRecord.FILE).is_file():
        if path.is_dir():
            raise UsageError(f"{path}: there is no {RunRecord.FILE}, so it is not the directory of a run.")
        return None
    step = RunRecord.read(run).stages.get("generate")
    if step is None and path.is_dir():
        raise UsageError(f"{path}: the run has no finished generate step. Run it with --until generate.")
    return run / step.dir if step else None


def find_rows(path: Path, runs: Path, *, rejected: bool) -> list[Row]:
    """The rows that a run learns from, or those that were rejected, with their provenance.

    Raises:
        UsageError: there is no finished generate step.
    """
    step = find_generated(path, runs)
    if step is None:
        raise UsageError(f"{path}: no run of this recipe has generated rows. Run it with --until generate.")
    file = step / (REJECTED if rejected else rows_file("train"))
    if rejected and file.stat().st_size:
        return read_rows(file, tools=step / TOOLS)  # an answer that was refused is empty
    return [] if rejected else read_generated(file, step / TOOLS)


def find_coverage(path: Path, runs: Path) -> tuple[Coverage, bool]:
    """The quotas of a curriculum with the rows that meet them, and whether these are accepted rows of a run.

    For a recipe that has not generated yet, the prompts that it starts from are counted.

    Raises:
        UsageError: there is no curriculum.
    """
    step = find_generated(path, runs)
    if step is not None:
        if not (step / Coverage.FILE).exists():
            raise UsageError(f"{path}: the run has no curriculum. Name one in data.curriculum of its recipe.")
        return Coverage.read(step), True
    recipe = load_recipe(path)
    if not isinstance(recipe, Recipe) or recipe.data.curriculum is None:
        raise RecipeError(f"{path}: the recipe has no data.curriculum, so there are no quotas.")
    rows = read_rows(recipe.data.prompts, tools=recipe.data.tools, limit=recipe.data.limit.get("prompts"))
    return coverage_of(rows, Curriculum.read(recipe.data.curriculum)), False
