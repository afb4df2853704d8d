"""Answers of a model to the test rows: asked for once, judged and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.components.checkers.calls import right_calls
from potstill.components.checkers.judge import judge_answer
from potstill.components.runtimes import Answer, Runtime, Sampling
from potstill.components.runtimes.readings import as_served, own_reading, same_reading, shown
from potstill.core.artifacts.answers import AnswerError, JudgedAnswer, answers_file, read_answers, write_answers
from potstill.core.records import Row

__all__ = ["TestBench", "expected_answer"]

_ENDINGS: dict[str, AnswerError] = {"length": "cut_off", "unfinished": "unfinished", "refused": "refused"}


@dataclass(frozen=True)
class TestBench:
    """The test rows, how every model answers them, and the directory that holds the answers."""

    rows: Sequence[Row]
    sampling: Sampling
    tool_format: str
    out: Path

    __test__ = False  # not a class of tests

    def answers(self, model: str, runtime: Runtime) -> list[JudgedAnswer]:
        """Judged answers of a model in the order of the rows; a finished file of an interrupted run is read again."""
        path = self.out / answers_file(model)
        if path.exists():
            found = read_answers(path, JudgedAnswer)
            if [answer.row_id for answer in found] == [row.row_id for row in self.rows]:
                return found
        answers = runtime.answer(self.rows, self.sampling, f"answer test rows: {model}")
        judged = [self._judge(row, answer) for row, answer in zip(self.rows, answers, strict=True)]
        write_answers(path, judged)
        return judged

    def _judge(self, row: Row, answer: Answer) -> JudgedAnswer:
        own = own_reading(answer.text, row, self.tool_format)
        served = as_served(answer, row, self.tool_format)
        verdict = judge_answer(served or own, row)
        # an answer that did not end is wrong, however it begins
        cut = answer.finish_reason != "stop"
        wanted = right_calls(row) if row.behaviour in ("tool_call", "multi_call") else ()
        return JudgedAnswer(
            row_id=row.row_id,
            behaviour=row.behaviour,
            prompt=next((m.content or "" for m in reversed(row.messages) if m.role == "user"), ""),
            text=answer.text,
            finish_reason=answer.finish_reason,
            exact=verdict.exact and not cut if verdict.exact is not None else None,
            parses=verdict.parses,
            schema_valid=verdict.schema_valid,
            expected=expected_answer(row),
            served=shown(served) if served and not same_reading(served, own) else None,
            error=_ENDINGS[answer.finish_reason] if cut and verdict.exact is not None else verdict.error,
            tools=tuple(dict.fromkeys(call.name for call in wanted)),
            group=row.group,
            confidence=None if answer.log_prob is None else min(1.0, math.exp(answer.log_prob)),
        )


def expected_answer(row: Row) -> str:
    """The right answer, for a person to read."""
    if calls := right_calls(row):
        return "\n".join(
            f"{c.name}({', '.join(f'{k}={json.dumps(v[0], ensure_ascii=False)}' for k, v in c.arguments.items())})"
            for c in calls
        )
    if row.completion and row.completion.content:
        return row.completion.content
    if row.gold and row.gold.equals:
        return row.gold.equals[0]
    return f"/{row.gold.match}/" if row.gold and row.gold.match else ""
