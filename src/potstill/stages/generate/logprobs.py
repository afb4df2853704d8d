"""Log-probabilities that an endpoint gives with its answers: checked before most answers are paid for, then stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.components.runtimes import Answer
from potstill.components.runtimes.log_probs import unpack_tokens
from potstill.components.targets.served import ServedTokens, require_distributions, require_same_tokens
from potstill.core.files import write_json_lines
from potstill.core.records import Row
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["FIRST_ROWS", "check_first_answers", "write_logprobs"]

FIRST_ROWS = 16
"""Number of rows that are answered first, to see what the endpoint gives."""


def check_first_answers(teacher: LoadedTeacher, kept: Sequence[Row], answers: Mapping[str, Sequence[Answer]]) -> None:
    """Check that the endpoint gives log-probabilities, of the student's tokens.

    Raises:
        StepError: it does not for more than half of the answers, so the other rows need not be paid for.
    """
    tokens, where = ServedTokens(teacher.student_chat), str(teacher.identity.endpoint)
    packed = [_packed(row, answers) for row in kept]
    found = [
        tokens.targets(row, teacher.student_chat.example(row), unpack_tokens(given) if given else None)
        for row, given in zip(kept, packed, strict=True)
    ]
    require_same_tokens(kept, found, where)
    require_distributions(found, where)


def write_logprobs(path: Path, rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]]) -> None:
    """Write the packed log-probabilities of the answers to `rows`, one line per answer that has them."""
    found = ((row.row_id, _packed(row, answers)) for row in rows)
    write_json_lines(path, ({"row_id": row_id, "logprobs": packed} for row_id, packed in found if packed))


def _packed(row: Row, answers: Mapping[str, Sequence[Answer]]) -> str | None:
    """Packed log-probabilities of the teacher's answer; None without any, and for a row that has its own answer."""
    return next((answer.tokens for answer in answers.get(row.row_id, ())), None)
