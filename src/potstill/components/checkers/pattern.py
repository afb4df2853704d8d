"""Patterns: the rows' own regular expressions, and the words with which an answer asks back or declines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.garble import is_garbled
from potstill.components.checkers.phrases import acts, asks_back, declines, plain
from potstill.core.errors import DataError
from potstill.core.records import Row
from potstill.core.words import printable

if TYPE_CHECKING:
    from regex import Match, Pattern

__all__ = ["check_clarify", "check_refuse", "compile_match", "matches"]

_SECONDS = 1.0  # for one search; a pattern that takes longer is one that tries every split of the text
_MOST_ELEMENTS = 100_000  # time and memory of the compilation grow with their number
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\()|(?P<close>\))|\{(?P<low>[\d\s]*)(?:,(?P<high>[\d\s]*))?\}|.",
    re.DOTALL,
)


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
        DataError: the pattern is not a valid regular expression, or repeats too much to be compiled.
    """
    import regex  # unlike re, it can stop a search that takes too long

    if (elements := _repeated_elements(pattern)) > _MOST_ELEMENTS:
        raise DataError(
            f"{where}: gold.match has {elements:,} elements with its repetitions written out, and at most "
            f"{_MOST_ELEMENTS:,} are compiled: {printable(repr(pattern), 80)}. Make the numbers in braces smaller, or "
            "repeat without a limit: a+ or a*."
        )

    try:
        return _compiled(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{where}: gold.match is not a valid regular expression ({error}): {pattern!r}. Fix it; "
            "to search for plain text, put a backslash before each of . ^ $ * + ? { } [ ] ( ) | and \\."
        ) from None


@lru_cache(maxsize=1024)
def _repeated_elements(pattern: str) -> int:
    """Number of elements of a pattern if each count in braces is written out: 6 for (ab){3}."""
    groups, last = [0], 0  # elements in each group that is open, and in the element before
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            groups.append(0)
            last = 0
        elif token["close"]:
            last = groups.pop() if len(groups) > 1 else 0
            groups[-1] += last
        elif token["low"] is not None:
            times = max(_count(token["low"]), _count(token["high"] or ""), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)


def _count(digits: str) -> int:
    return int("".join(digits.split())[:20] or 0)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Pattern[str]:
    import regex

    return regex.compile(plain(pattern), regex.IGNORECASE)
