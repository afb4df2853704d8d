"""Answers of one model to the test rows, judged and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from potstill.components.checkers.judge import judge
from potstill.components.runtimes import Runtime, Sampling
from potstill.core.files import write_text
from potstill.core.records import BEHAVIOURS, Row
from potstill.core.stats import wilson

__all__ = ["JudgedAnswer", "answer_rows", "rate", "read_answers", "score"]


class JudgedAnswer(BaseModel):
    """One line of `answers-MODEL.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    row_id: str
    behaviour: str
    prompt: str
    text: str
    finish_reason: str
    exact: bool | None
    parses: bool
    schema_valid: bool | None
    expected: str


def _expected(row: Row) -> str:
    """The right answer as a person reads it."""
    if row.gold and row.gold.calls:
        return "\n".join(
            f"{c.name}({', '.join(f'{k}={json.dumps(v[0])}' for k, v in c.arguments.items())})" for c in row.gold.calls
        )
    if row.completion and row.completion.content:
        return row.completion.content
    return f"/{row.gold.match}/" if row.gold and row.gold.match else ""


def answer_rows(
    runtime: Runtime,
    rows: Sequence[Row],
    sampling: Sampling,
    path: Path,
    label: str,
    tool_format: Literal["auto", "hermes", "llama3", "mistral"],
) -> list[JudgedAnswer]:
    """Answers in the order of `rows`, from `path` if they are there, else asked for and written there whole."""
    if path.exists():
        return read_answers(path)
    judged = []
    for row, answer in zip(rows, runtime.answer(rows, sampling, label), strict=True):
        verdict = judge(answer.text, row, tool_format)
        judged.append(
            JudgedAnswer(
                row_id=row.row_id,
                behaviour=row.behaviour,
                prompt=next((m.content or "" for m in reversed(row.messages) if m.role == "user"), ""),
                text=answer.text,
                finish_reason=answer.finish_reason,
                # an answer that was cut off is not the right one, whatever its beginning says
                exact=verdict.exact and answer.finish_reason == "stop" if verdict.exact is not None else None,
                parses=verdict.parses,
                schema_valid=verdict.schema_valid if row.tools else None,
                expected=_expected(row),
            )
        )
    write_text(path, "".join(a.model_dump_json() + "\n" for a in judged))
    return judged


def read_answers(path: Path) -> list[JudgedAnswer]:
    """Answers of one model, in the order of the test rows."""
    return [JudgedAnswer.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rate(outcomes: Sequence[bool]) -> dict[str, float | int] | None:
    """k of n with its Wilson 95 % interval, or None when nothing can be judged."""
    if not outcomes:
        return None
    k, n = sum(outcomes), len(outcomes)
    interval = wilson(k, n)
    return {"k": k, "n": n, "rate": k / n, "low": interval.low, "high": interval.high}


def score(answers: Sequence[JudgedAnswer]) -> dict[str, Any]:
    """Exact match in all and per behaviour, and schema validity."""
    behaviours = {b: rate([a.exact for a in answers if a.behaviour == b and a.exact is not None]) for b in BEHAVIOURS}
    return {
        "exact": rate([a.exact for a in answers if a.exact is not None]),
        "behaviours": {b: r for b, r in behaviours.items() if r is not None},
        "schema_valid": rate([a.schema_valid for a in answers if a.schema_valid is not None]),
    }
