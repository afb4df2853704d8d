"""Filters of answered rows: each keeps a row, or drops it with what it found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill.components.checkers.phrases import declines
from potstill.components.filters.near_duplicates import NearDuplicates
from potstill.core.leakage import same_words
from potstill.core.recipe.generate import RowFilterName
from potstill.core.records import Row

__all__ = ["FILTERS", "RowFilter", "find_dropped"]

_ALIKE = 0.85  # resemblance of two prompts that teach the same
_LONG = 20  # characters from which on a test prompt inside of another prompt is no chance
_PII = {
    "an e-mail address": re.compile(r"\b[\w.+-]+@(?!example\.)[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"),
    "an IBAN": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "a social security number": re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"),
    "a telephone number": re.compile(
        r"(?<!\w)(?:\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}|\(\d{3}\) ?\d{3}-\d{4})(?!\w)"
    ),
}  # fmt: skip
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")

Found = str | None
"""What speaks against a row, as a clause; None for a row that is kept."""


@dataclass(frozen=True)
class RowFilter:
    """A filter of rows.

    version   raised when it decides otherwise than before
    find      rows and test rows -> what speaks against each row
    """

    version: int
    find: Callable[[Sequence[Row], Sequence[Row]], list[Found]]


def _asked(row: Row) -> str:
    return "\n".join(message.content or "" for message in row.messages if message.role == "user")


def _pii(rows: Sequence[Row], test: Sequence[Row]) -> list[Found]:
    """Personal data by patterns: e-mail addresses, telephone, account, card and social security numbers."""
    return [_pii_in(row) for row in rows]


def _pii_in(row: Row) -> Found:
    messages = (*row.messages, *([row.completion] if row.completion else []))
    calls = (call.function.arguments for message in messages for call in message.tool_calls)
    text = "\n".join((*(message.content or "" for message in messages), *calls))
    found = next((name for name, pattern in _PII.items() if pattern.search(text)), None)
    if found is None and any(_is_card(match[0]) for match in _CARD.finditer(text)):
        found = "a payment card number"
    return found and f"it has {found}"


def _is_card(text: str) -> bool:
    """Whether the digits of a number have Luhn's check digit (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()][::-1]
    return sum(d if place % 2 == 0 else sum(divmod(2 * d, 10)) for place, d in enumerate(digits)) % 10 == 0


def _refusal(rows: Sequence[Row], test: Sequence[Row]) -> list[Found]:
    """Answers that decline, where the row does not ask for a refusal and no gold says that it is right."""
    return ["the answer declines" if _declines_wrongly(row) else None for row in rows]


def _declines_wrongly(row: Row) -> bool:
    if row.behaviour in ("refuse", "clarify") or row.completion is None or row.completion.tool_calls:
        return False
    said_right = row.gold is not None and bool(row.gold.equals or row.gold.match)
    return not said_right and declines(row.completion.content or "")


def _near_duplicates(rows: Sequence[Row], test: Sequence[Row]) -> list[Found]:
    """Prompts that are nearly the same as an earlier one; several answers to one prompt stay."""
    index, ids, found = NearDuplicates(_ALIKE), list[str](), list[Found]()
    verdicts: dict[str, Found] = {}
    for row in rows:
        if row.row_id not in verdicts:
            near = index.find(_asked(row))
            verdicts[row.row_id] = f"{near[1]:.0%} like row {ids[near[0]]}" if near else None
            if near is None:
                index.add(_asked(row))
                ids.append(row.row_id)
        found.append(verdicts[row.row_id])
    return found


def _decontamination(rows: Sequence[Row], test: Sequence[Row]) -> list[Found]:
    """Prompts that are nearly the same as one of a test row, or have one inside; short ones must be the same."""
    index, exact = NearDuplicates(), {same_words(_asked(row)): row for row in test}
    held = {key: row for key, row in exact.items() if len(key) >= _LONG}
    for row in test:
        index.add(_asked(row))
    found: list[Found] = []
    for row in rows:
        text = _asked(row)
        key, near = same_words(text), index.find(text)
        if near:
            found.append(f"{near[1]:.0%} like test row {test[near[0]].name}")
        else:
            inside = exact.get(key) or next((other for known, other in held.items() if known in key), None)
            found.append(f"it holds the prompt of test row {inside.name}" if inside else None)
    return found


FILTERS: dict[RowFilterName, RowFilter] = {
    "pii": RowFilter(1, _pii),
    "refusal": RowFilter(1, _refusal),
    "near_duplicates": RowFilter(1, _near_duplicates),
    "decontamination": RowFilter(1, _decontamination),
}


def find_dropped(
    rows: Sequence[Row], names: Sequence[RowFilterName], test: Sequence[Row]
) -> list[tuple[RowFilterName, str] | None]:
    """For each row the first filter that drops it, and what it found; None for a row that is kept.

    A filter sees only the rows that those before it keep.

    Args:
        rows: answered rows.
        names: the filters, in their order.
        test: rows that no training row may be like, for `decontamination`.
    """
    out: list[tuple[RowFilterName, str] | None] = [None] * len(rows)
    for name in names:
        left = [place for place, dropped in enumerate(out) if dropped is None]
        for place, found in zip(left, FILTERS[name].find([rows[place] for place in left], test), strict=True):
            if found is not None:
                out[place] = (name, found)
    return out
