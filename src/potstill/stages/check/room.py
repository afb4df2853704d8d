"""Compares what a check found that a run needs with what is free now; asked in every run, cached or not."""

from __future__ import annotations

from pathlib import Path

from potstill.components.sizing.room import disk_problem, download_problem, memory_problem
from potstill.core.artifacts.check import CheckResult
from potstill.core.errors import RecipeError

__all__ = ["confirm"]


def confirm(result: CheckResult, runs: Path) -> list[str]:
    """Warnings about memory.

    Args:
        result: what the check found.
        runs: folder of the run; it need not exist.

    Raises:
        RecipeError: the disk under `runs`, or in the hub's cache, is too small.
    """
    if problem := download_problem(result.download) or disk_problem(result.disk, runs):
        raise RecipeError(problem)
    warning = memory_problem(result.memory)
    return [warning] if warning else []
