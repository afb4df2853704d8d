"""Whether an answer is what an item expects: one check per kind of expectation.

Exact text, patterns, calls, refusals and clarifications are judged by the checkers of test rows, so an item and a row
that say the same are judged the same. For all other kinds the answer must be in words, without any call, and is then
checked by a function of `WORDS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.golds import check_golds
from potstill.components.checkers.instructions import follows
from potstill.components.checkers.judge import judge_answer
from potstill.components.checkers.numeric import final_number
from potstill.components.checkers.phrases import plain
from potstill.components.suites.expected import Calls, Constraints, ContainsAll, Expected, FitsSchema, Numeric
from potstill.components.suites.items import Item
from potstill.core.artifacts.answers import AnswerError
from potstill.core.errors import DataError
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.messages import Message
from potstill.core.records import Gold, Row
from potstill.core.tools import schema_validator

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["WORDS", "Finding", "check_answer", "check_expected", "expected_text", "item_row"]

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether an answer is right, and why not."""

    right: bool
    error: AnswerError | None = None


def item_row(item: Item, where: str = "") -> Row:
    """The item as a row of test data: what a runtime is asked, and what the checkers of rows need."""
    row: dict[str, Any] = {"messages": item.messages, "tools": item.tools, "group": item.group, "where": where}
    match item.expected.kind:
        case "exact":
            row["completion"] = Message(role="assistant", content=item.expected.text)
        case "one_of":
            row["gold"] = Gold(equals=item.expected.texts)
        case "regex":
            row["gold"] = Gold(match=item.expected.pattern)
        case "calls":
            calls = item.expected.calls
            if calls:
                row |= {"behaviour": "tool_call" if len(calls) == 1 else "multi_call", "gold": Gold(calls=calls)}
        case "refusal" | "clarification":
            row["behaviour"] = "refuse" if item.expected.kind == "refusal" else "clarify"
            row["gold"] = Gold(match=item.expected.match) if item.expected.match else None
    return Row(**row)


def check_answer(item: Item, answer: ParsedAnswer) -> Finding:
    """Judge an answer whose calls have been read. A call that cannot be read makes it wrong.

    Raises:
        DataError: what the item expects is not valid.
    """
    with _said_of_item(item):
        judged = judge_answer(answer, item_row(item, item.name))
    if judged.exact is not None:
        return Finding(judged.exact, judged.error)
    if not judged.parses:
        return Finding(False, "unparsable")
    if judged.made_call:
        return Finding(False, "unwanted_call")
    right = WORDS[item.expected.kind](item.expected, judged.content)
    return Finding(right, None if right else "wrong_words")


@contextmanager
def _said_of_item(item: Item) -> Iterator[None]:
    """Name the keys of the item in errors of the checkers, which name those of a row."""
    try:
        yield
    except DataError as error:
        message = str(error).removeprefix(item.name)
        for of_row, of_item in _KEYS:
            message = message.replace(of_row, of_item.format(match=_MATCH.get(item.expected.kind, "match")))
        raise DataError(f"{item.name}{message}") from None


_MATCH = {"regex": "pattern"}
_KEYS = (
    ("gold.match", "expected.{match}"),
    ("gold.calls", "expected.calls"),
    ("the row does not have", "the item does not have"),
    ("give the row tools, or the recipe data.tools", "give the item tools"),
    ("Fix the gold or", "Fix the item or"),
)
"""What the checkers of rows say, and the same of an item."""


def _no_call(expected: Calls, text: str) -> bool:
    return bool(text.strip())


def _fits(expected: FitsSchema, text: str) -> bool:
    if expected.fenced and (fenced := _FENCE.fullmatch(text)):
        text = fenced[1]
    try:
        value = read_strictly(text)
    except BadJson:
        return False
    return _schema(json.dumps(expected.json_schema, sort_keys=True)).is_valid(value)


@lru_cache(maxsize=1024)
def _schema(text: str) -> Validator:
    return schema_validator(json.loads(text))


def _is_number(expected: Numeric, text: str) -> bool:
    found = final_number(text)
    return found is not None and abs(found - expected.number) <= expected.margin


def _contains_all(expected: ContainsAll, text: str) -> bool:
    said = _folded(text)
    return all(_folded(t) in said for t in expected.texts) and not any(_folded(t) in said for t in expected.absent)


def _follows(expected: Constraints, text: str) -> bool:
    return all(follows(text, rule.name, rule.values) for rule in expected.rules)


def _folded(text: str) -> str:
    return " ".join(plain(text).casefold().split())


WORDS: dict[str, Callable[[Any, str], bool]] = {
    "calls": _no_call,
    "schema": _fits,
    "numeric": _is_number,
    "contains_all": _contains_all,
    "constraints": _follows,
}
"""Checks of answers in words, by the kind of expectation: what is expected, and the answer's text."""


def check_expected(items: Sequence[Item]) -> None:
    """Check that what each item expects can be answered: its tools, patterns, calls and schemas.

    Raises:
        DataError: it cannot; the message names the item.
    """
    for item in items:
        with _said_of_item(item):
            check_golds([item_row(item, item.name)])
        if item.expected.kind == "schema":
            try:
                schema_validator(item.expected.json_schema)
            except ValueError as error:
                raise DataError(
                    f"{item.name}: expected.json_schema is not a valid JSON Schema: {error}. Fix the schema."
                ) from None


def expected_text(expected: Expected) -> str:
    """What is right, for a person to read."""
    match expected.kind:
        case "exact":
            return expected.text
        case "one_of":
            return " or ".join(expected.texts)
        case "regex":
            return f"/{expected.pattern}/"
        case "schema":
            return f"JSON that fits {json.dumps(expected.json_schema, ensure_ascii=False)}"
        case "numeric":
            return expected.value if expected.margin == 0 else f"{expected.value} within {expected.tolerance}"
        case "contains_all":
            absent = f", without {', '.join(expected.absent)}" if expected.absent else ""
            return f"contains {', '.join(expected.texts)}{absent}"
        case "constraints":
            return "; ".join(f"{rule.name} {json.dumps(rule.values, ensure_ascii=False)}" for rule in expected.rules)
        case "calls":
            shown = (f"{c.name}({json.dumps(c.arguments, ensure_ascii=False)})" for c in expected.calls)
            return "\n".join(shown) or "no call"
        case "refusal" | "clarification":
            return f"a {expected.kind}{f' with /{expected.match}/' if expected.match else ''}"
