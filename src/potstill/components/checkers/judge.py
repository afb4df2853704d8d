"""Judge one answer: the checker of the row's behaviour, and whether its tool calls can be read and run.

The rules are strict on purpose, because a lenient checker hides what will happen on a device: a tool call that cannot
be read is an attempt that failed, never "no call", so it is not a right refusal either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from potstill.components.chat.thinking import without_thinking
from potstill.components.chat.tool_calls import UNFINISHED, ParsedAnswer, parse_answer
from potstill.components.checkers.attempts import has_attempt
from potstill.components.checkers.calls import calls_error, check_calls, names_match, right_calls
from potstill.components.checkers.exact import check_exact, is_reference
from potstill.components.checkers.pattern import check_clarify, check_refuse
from potstill.components.checkers.schema import schema_valid
from potstill.core.artifacts.answers import AnswerError
from potstill.core.records import Behaviour, Call, Row
from potstill.core.tools import Tool

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

    parses        every call in it can be read, and its thinking ends
    schema_valid  it parses, and every call fits the schema of its tool; None where there is no call
    exact         it is the right answer; None where the row does not say what is right
    made_call     it calls a tool or tries to: a malformed call counts, and so does one in any other markup
    right_name    it calls the right tools, each as often as it should; None where the row asks for no known call
    error         why it is wrong; None where it is not
    """

    parses: bool
    schema_valid: bool | None
    exact: bool | None
    made_call: bool
    right_name: bool | None
    error: AnswerError | None
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
    answer, attempted = _answer_proper(answer, row)
    parses = answer.parse_error is None
    right = CHECKERS[row.behaviour](answer, row)
    exact = None if right is None else right and parses
    made_call = bool(answer.calls) or attempted
    gold = right_calls(row) if row.behaviour in _CALLING else ()
    valid = parses and schema_valid(answer.calls, row.tools, row.name)
    return Judgement(
        parses=parses,
        schema_valid=valid if made_call else None,
        exact=exact,
        made_call=made_call,
        right_name=parses and names_match(answer.calls, gold) if gold else None,
        error=_error(answer, row, made_call) if exact is False else None,
        calls=answer.calls,
        content=answer.content,
    )


_CALLING = ("tool_call", "multi_call")


def _answer_proper(answer: ParsedAnswer, row: Row) -> tuple[ParsedAnswer, bool]:
    """The answer without thinking, and whether it tries to call in a way that was not read as a call.

    Words around calls that a runtime has read are only words where the row asks for calls.
    """
    content, unfinished = without_thinking(answer.content)
    answer = ParsedAnswer(answer.calls, content.strip(), answer.parse_error)
    if unfinished or answer.parse_error == UNFINISHED:
        return replace(answer, parse_error=UNFINISHED), False
    if answer.parse_error is not None:
        return answer, True
    words = row.behaviour == "answer"
    if (answer.calls and row.behaviour in _CALLING) or (words and is_reference(content, row)):
        return answer, False
    tools = [name for tool in row.tools if (name := tool_name(tool))]
    if not has_attempt(content, tools, only_known=words):
        return answer, False
    return replace(answer, parse_error="the text has a call in a markup that is not read"), True


def tool_name(tool: Tool) -> str | None:
    """The name of a tool; None for one that is not valid, which `check` reports."""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _error(answer: ParsedAnswer, row: Row, made_call: bool) -> AnswerError | None:
    """Why a wrong answer is wrong."""
    if row.behaviour not in _CALLING:
        return "unwanted_call" if made_call else "wrong_words" if answer.parse_error is None else "unparsable"
    return "unparsable" if answer.parse_error is not None else calls_error(answer.calls, right_calls(row))


def is_judged(row: Row) -> bool:
    """Whether the row says enough to tell a right answer from a wrong one."""
    return CHECKERS[row.behaviour](ParsedAnswer((), ""), row) is not None
