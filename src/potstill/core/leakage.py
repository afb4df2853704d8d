"""Test rows that are also trained on, or that repeat each other: a score on them does not show how a model does on new
rows.

Two texts are the same if they differ in case, spaces and punctuation alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

from potstill.core.records import LabelledRow, Message, Row

__all__ = ["leaked_rows", "leaked_texts", "same_words", "unrepeated_rows", "unrepeated_texts"]

_MEANT = "%#&@*/+"  # marks that distinguish texts: C and C#, 5 and 5 %


@lru_cache(maxsize=100_000)
def same_words(text: str) -> str:
    """What is left of a text without case, spaces and punctuation; the marks inside and before numbers stay."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (c for i, c in enumerate(folded) if c in _MEANT or _is_word(c) or _of_number(folded, i))
    return "".join(kept) or text.strip()


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNMS"  # letters, numbers, accents and symbols


def _of_number(text: str, at: int) -> bool:
    """Whether a mark or a space is between digits, or is the sign of a number."""
    before, after = text[:at].rstrip()[-1:], text[at + 1 : at + 2]
    if not after.isdigit():
        return False
    return before.isdigit() or (text[at] in "-\u2212" and not text[at - 1 : at].isalnum())


def _asked(messages: Sequence[Message]) -> Hashable:
    return tuple(
        (m.role, same_words(m.content or ""), tuple((c.function.name, c.function.arguments) for c in m.tool_calls))
        for m in messages
    )


def leaked_rows(test: Sequence[Row], trained_on: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Each test row whose prompt, with the same tools, is trained on, with the training row; in the order of `test`."""
    asked = {_asked(row.messages) for row in test}
    trained: dict[Hashable, list[Row]] = {}
    for row in trained_on:
        key = _asked(row.messages)
        if key in asked:
            trained.setdefault(key, []).append(row)
    found = ((row, _with_tools_of(row, trained.get(_asked(row.messages), ()))) for row in test)
    return [(row, other) for row, other in found if other is not None]


def unrepeated_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows without those whose prompt, with the same tools, has come before."""
    seen: dict[Hashable, list[Row]] = {}
    first = []
    for row in rows:
        same = seen.setdefault(_asked(row.messages), [])
        if _with_tools_of(row, same) is None:
            same.append(row)
            first.append(row)
    return first


def _with_tools_of(row: Row, others: Iterable[Row]) -> Row | None:
    """The row with the same tools, and the same messages word for word if there is one."""
    same = [other for other in others if other.tools == row.tools]
    return next((other for other in same if other.messages == row.messages), same[0] if same else None)


def leaked_texts(test: Sequence[LabelledRow], trained_on: Iterable[LabelledRow]) -> list[LabelledRow]:
    """Each test row of a classifier whose text is trained on, in the order of `test`."""
    texts = {same_words(row.text) for row in trained_on}
    return [row for row in test if same_words(row.text) in texts]


def unrepeated_texts(rows: Iterable[LabelledRow]) -> list[LabelledRow]:
    """The rows of a classifier without those whose text has come before."""
    first: dict[str, LabelledRow] = {}
    for row in rows:
        first.setdefault(same_words(row.text), row)
    return list(first.values())
