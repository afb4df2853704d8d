"""The prompts that a curriculum adds: the teacher writes them until the accepted rows cover what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.curriculum.coverage import coverage_of
from potstill.components.curriculum.spec import Curriculum
from potstill.components.curriculum.steering import require_reachable, write_prompts
from potstill.components.runtimes import Sampling
from potstill.core.artifacts.coverage import Coverage
from potstill.core.hashing import HashedPath
from potstill.core.records import Row
from potstill.stages.generate.filters import with_filters
from potstill.stages.generate.teachers import LoadedTeacher
from potstill.stages.generate.teaching import teach

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs

__all__ = ["coverage_findings", "with_written_prompts", "write_coverage"]

_LONGEST = 512  # tokens of a prompt


def with_written_prompts(inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: list[Row]) -> list[Row]:
    """The rows, and the prompts that the curriculum adds to them.

    Args:
        inputs: of the stage; they name a curriculum.
        teachers: they answer the prompts, and the first of them writes them.
        rows: prompts to start from.

    Raises:
        RecipeError: a quota cannot be met.
    """
    assert inputs.curriculum is not None
    curriculum = Curriculum.read(inputs.curriculum.path)
    require_reachable(curriculum, rows, inputs.curriculum.path)

    def ask(requests: Sequence[Row], number: int) -> list[str]:
        sampling = Sampling(_LONGEST, curriculum.temperature, 1.0, inputs.seed + number)
        answers = teachers[0].runtime.answer(requests, sampling, f"write prompts, round {number + 1}")
        return [answer.text if answer.finish_reason == "stop" else "" for answer in answers]

    def accepted(asked: list[Row]) -> list[Row]:
        return with_filters(inputs, teach(inputs, teachers, asked, "train")).kept

    return write_prompts(curriculum, rows, ask, accepted, inputs.seed)


def write_coverage(curriculum: HashedPath, kept: Sequence[Row], rows: Sequence[Row], out: Path) -> None:
    """Write coverage.json: the accepted rows of each quota."""
    written = [row for row in rows if "curriculum" in row.provenance]
    coverage_of(kept, Curriculum.read(curriculum.path), written).write(out)


def coverage_findings(folder: Path) -> list[str]:
    """What a person must know about the quotas; nothing for a recipe without a curriculum."""
    return [f"generate: {Coverage.read(folder).sentence}."] if (folder / Coverage.FILE).exists() else []
