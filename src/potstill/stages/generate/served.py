"""What an endpoint says of its answers' tokens: looked at before most is paid for, and kept beside the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.components.runtimes import Answer
from potstill.components.runtimes.log_probs import unpack_tokens
from potstill.components.targets.served import ServedTokens, require_distributions, require_same_tokens
from potstill.core.files import write_json_lines
from potstill.core.recipe import Recipe
from potstill.core.records import Row
from potstill.stages.generate.journal import Journal, answer_all
from potstill.stages.generate.sift import sift
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["ask_first_rows", "write_tokens"]

_FIRST = 16


def ask_first_rows(recipe: Recipe, teacher: LoadedTeacher, rows: Sequence[Row], journal: Journal) -> None:
    """Have the first rows answered, and make sure that the endpoint's tokens are the student's.

    Raises:
        StepError: those of more than half of the answers are not, or nothing is said of them, so the other rows need
            not be paid for.
    """
    first, tokens = rows[:_FIRST], ServedTokens(teacher.student_chat)
    answers = answer_all(teacher, first, recipe.generate, recipe.seed, journal, "first rows")
    kept, _ = sift(first, answers, teacher, recipe.generate.keep_truncated, recipe.chat.context)
    packed = [answers[row.row_id].tokens for row in kept]
    found = [
        tokens.targets(row, teacher.student_chat.example(row), unpack_tokens(said) if said else None)
        for row, said in zip(kept, packed, strict=True)
    ]
    where = str(teacher.identity["endpoint"])
    require_same_tokens(kept, found, where)
    require_distributions(found, where)


def write_tokens(path: Path, rows: Sequence[Row], answers: Mapping[str, Answer]) -> None:
    """What the endpoint said of the answers of `rows`, a line each, whole or not at all."""
    found = ((row.row_id, answers[row.row_id].tokens) for row in rows)
    write_json_lines(path, ({"row_id": row_id, "tokens": tokens} for row_id, tokens in found if tokens))
