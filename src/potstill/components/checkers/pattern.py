"""Patterns: the rows' own regular expressions, and the words with which an answer asks back or declines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.garble import is_garbled
from potstill.components.checkers.phrases import acts, asks_back, declines, plain
from potstill.core.errors import DataError
from potstill.core.records import Row

if TYPE_CHECKING:
    from regex import Match, Pattern

__all__ = ["check_clarify", "check_refuse", "compile_match", "matches"]

_SECONDS = 1.0  # for one search; a pattern that takes longer is one that tries every split of the text


def check_clarify(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call and asks back: `gold.match` is found, or else it asks for something."""
    if answer.calls or is_garbled(answer.content):
        return False
    if row.gold and row.gold.match:
        return next(matches(row, answer.content), None) is not None
    return asks_back(answer.content, settled=declines(answer.content) or acts(answer.content))


def check_refuse(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call, declines (`gold.match`, or else plain words), and asks for nothing."""
    if answer.calls or is_garbled(answer.content) or asks_back(answer.content, settled=True):
        return False
    if row.gold and row.gold.match:
        return next(matches(row, answer.content), None) is not None
    return declines(answer.content)


def matches(row: Row, text: str) -> Iterator[Match[str]]:
    """The places where the row's `gold.match` is found in a text that is made `plain`; none without a pattern.

    Raises:
        DataError: the pattern is not valid, or takes too long.
    """
    if row.gold is None or row.gold.match is None:
        return
    where = row.name
    try:
        yield from compile_match(row.gold.match, where).finditer(plain(text), timeout=_SECONDS)
    except TimeoutError:
        raise DataError(
            f"{where}: gold.match takes more than {_SECONDS:.0f} second on an answer of {len(text):,} characters: "
            f"{row.gold.match!r}. Remove repetitions inside repetitions, such as (a+)+."
        ) from None


def compile_match(pattern: str, where: str) -> Pattern[str]:
    """A compiled `gold.match` that ignores case. `where` names the row in the message.

    Raises:
        DataError: the pattern is not a valid regular expression.
    """
    import regex  # unlike re, it can stop a search that takes too long

    try:
        return _compiled(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{where}: gold.match is not a valid regular expression ({error}): {pattern!r}. Fix it; "
            "to search for plain text, put a backslash before each of . ^ $ * + ? { } [ ] ( ) | and \\."
        ) from None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Pattern[str]:
    import regex

    return regex.compile(plain(pattern), regex.IGNORECASE)
