"""Answers in words that are known: equal to the completion or to `gold.equals`, or matched by the row's own pattern."""

from __future__ import annotations

import re

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.garble import is_garbled
from potstill.components.checkers.pattern import matches
from potstill.components.checkers.phrases import plain
from potstill.core.records import Row

__all__ = ["check_exact", "is_reference"]

# a match directly after or before these words says the opposite: "it is not Paris", "Paris is wrong"
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:(?:not|cannot|never)(?: be)?|neither|nor|anything but|rather than|instead of|other than|as opposed to"
    r"|except(?: for)?)|n't(?: be| (?:think|believe) (?:that )?it(?:'s| is))?) "
    r"(?:(?:really|actually|exactly|necessarily|quite) )?(?:(?:a|an|the|in|at|on|to|called|named) )?"
    r"(?:\w+ of )?[\"'*]*$"
    r"|(?:\bnot|n't) (?:know|say|tell|sure|certain) (?:whether|if) [^.!?]{0,30}$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[\"'*]* (?:(?:is|was|are|were|would be|'s) (?:(?:a|an|the) (?=wrong|incorrect|false))?"
    r"(?:not|wrong|incorrect|false)|(?:isn|wasn|aren|weren)'t)\b"
    r"|[\"'*]*\?\s*(?:no|nope|wrong)\b(?! doubt)",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|no|never|nor|neither|cannot)\b|n't", re.IGNORECASE)


def check_exact(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call and has the words of the completion, of `gold.equals`, or `gold.match`.

    Spacing does not count, nor does case for `gold.equals` and `gold.match`. A match that the answer denies, or that
    is in garbled text, does not count. None where the row has none of the three, or its gold is a continuation.
    """
    gold = row.gold
    if gold and gold.continuation:
        return None
    if not _reference(row) and not (gold and (gold.match or gold.equals)):
        return None
    if answer.calls:
        return False
    if is_reference(answer.content, row):
        return True
    content = plain(answer.content)
    garbled, whole = is_garbled(content), (0, len(content))
    return any(
        found.span() == whole or not (garbled or _is_denied(content, *found.span())) for found in matches(row, content)
    )


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether the text says that a match is wrong; a match with a negation of its own is taken as it is."""
    if _NEGATION.search(text, start, end):
        return False
    return bool(_DENIED_BEFORE.search(text[:start]) or _DENIED_AFTER.match(text, end))


def is_reference(text: str, row: Row) -> bool:
    """Whether a text is the row's own answer in words, or one of `gold.equals`."""
    words = plain(text).split()
    reference = _reference(row)
    if reference and words == plain(reference).split():
        return True
    folded = [word.casefold() for word in words]
    return any(folded == plain(right).casefold().split() for right in (row.gold.equals if row.gold else ()))


def _reference(row: Row) -> str | None:
    return row.completion.content if row.completion else None
