"""Patterns: answers in words that ask back or refuse, and the rows' own regular expressions."""

from __future__ import annotations

import re

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.core.errors import DataError
from potstill.core.records import Row

__all__ = ["check_clarify", "check_refuse", "compile_match", "row_pattern"]

_ASKS = r"\?"
# How a model declines in English: in the present tense, about itself or the request. "Sorry" alone is no refusal, nor
# is "could not find". Rows in other languages need their own `gold.match`. \u2019 is the typographic apostrophe.
_DECLINES = (
    r"\b(?:I|we)(?: (?:am|are)|['\u2019](?:m|re))? (?:(?:just|really|simply|currently) )?"
    r"(?:cannot|can ?not|can['\u2019]t(?! wait)|won['\u2019]t|will not|unable to|not able to|can only)\b"
    r"|\b(?:I|we) (?:(?:do not|don['\u2019]t) have|have no)\b.{0,30}?"
    r"\b(?:tools?|functions?|ways?|ability|access|means|control|permission|devices?)\b"
    r"|\b(?:that|this|it|which)(?: is|['\u2019]s) (?:not|beyond|outside)\b.{0,20}?"
    r"\b(?:possible|supported|available|something I|what I|my)\b"
    r"|\bthere(?: is|['\u2019]s) no (?:tool|function|way|device)\b"
)


def check_clarify(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call and asks back: `gold.match` is found, or else a question mark."""
    return not answer.calls and row_pattern(row, _ASKS).search(answer.content) is not None


def check_refuse(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call, declines (`gold.match`, or else plain English), and ends with no question."""
    declined = row_pattern(row, _DECLINES).search(answer.content) is not None
    return not answer.calls and declined and not answer.content.endswith("?")


def row_pattern(row: Row, default: str) -> re.Pattern[str]:
    """The pattern of the row's gold, or else `default`.

    Raises:
        DataError: the pattern of the gold is not a valid regular expression.
    """
    given = row.gold.match if row.gold else None
    return compile_match(given or default, row.where or f"row {row.row_id}")


def compile_match(pattern: str, where: str) -> re.Pattern[str]:
    """A compiled `gold.match` that ignores case. `where` names the row in the message.

    Raises:
        DataError: the pattern is not a valid regular expression.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: gold.match is not a valid regular expression ({error}): {pattern!r}. Fix it; "
            "to search for plain text, put a backslash before each of . ^ $ * + ? { } [ ] ( ) | and \\."
        ) from None
