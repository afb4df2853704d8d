"""Judge one answer: the checker of the row's behaviour, and whether its tool calls can be read and run.

The rules are strict on purpose, because a lenient checker hides what a device will meet: a tool call that cannot be
read is an attempt that failed, never "no call", so it is not a right refusal either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.components.checkers.calls import check_calls, names_match, right_calls
from potstill.components.checkers.exact import check_exact
from potstill.components.checkers.pattern import check_clarify, check_refuse
from potstill.components.checkers.schema import schema_valid
from potstill.core.records import Behaviour, Call, Row

__all__ = ["CHECKERS", "Checker", "Judgement", "is_judged", "judge", "judge_answer"]


class Checker(Protocol):
    """Decides whether an answer is right."""

    def __call__(self, answer: ParsedAnswer, row: Row) -> bool | None:
        """True: pass. False: fail. None: unknown, whatever the answer, because the row does not say what is right.

        Raises:
            DataError: what the row says is not valid.
        """
        ...


CHECKERS: dict[Behaviour, Checker] = {
    "tool_call": check_calls,
    "multi_call": check_calls,
    "clarify": check_clarify,
    "refuse": check_refuse,
    "answer": check_exact,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is found of one answer.

    parses        there is no malformed call in it
    schema_valid  it parses, and every call fits the schema of its tool (true where there is no call)
    exact         it is the right answer; None where the row does not say what is right
    made_call     it calls a tool or tries to: a malformed call counts
    right_name    it calls the right tools, each as often as it should; None where the row asks for no known call
    """

    parses: bool
    schema_valid: bool
    exact: bool | None
    made_call: bool
    right_name: bool | None
    calls: tuple[Call, ...]
    content: str


def judge(text: str, row: Row, tool_format: str = "auto") -> Judgement:
    """Judge the text of a model by what the row says is right; the calls are read from the text.

    Raises:
        UsageError: an unknown format of tool calls.
        DataError: `gold.match` or a tool of the row is not valid.
    """
    only_known = row.behaviour == "answer"  # which may be JSON itself
    return judge_answer(parse_answer(text, tool_format, row.tools, only_known=only_known), row)


def judge_answer(answer: ParsedAnswer, row: Row) -> Judgement:
    """Judge an answer whose calls have been read, by a runtime or from its text. A malformed call makes it wrong.

    Raises:
        DataError: `gold.match` or a tool of the row is not valid.
    """
    parses = answer.parse_error is None
    right = CHECKERS[row.behaviour](answer, row)
    gold = right_calls(row) if row.behaviour in ("tool_call", "multi_call") else ()
    return Judgement(
        parses=parses,
        schema_valid=parses and schema_valid(answer.calls, row.tools, row.where or f"row {row.row_id}"),
        exact=None if right is None else right and parses,
        made_call=bool(answer.calls) or not parses,
        right_name=parses and names_match(answer.calls, gold) if gold else None,
        calls=answer.calls,
        content=answer.content,
    )


def is_judged(row: Row) -> bool:
    """Whether the row says enough to tell a right answer from a wrong one."""
    return CHECKERS[row.behaviour](ParsedAnswer((), ""), row) is not None
