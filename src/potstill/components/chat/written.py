"""Rows whose answer is text that a person wrote, as far as it fits into the context."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.core.records import Row

__all__ = ["fitting_rows", "written_rows"]


def written_rows(rows: Sequence[Row], chat: ChatFormat, context: int) -> list[Row]:
    """The rows with such text, each as in `fitting_rows`."""
    return fitting_rows([row for row in rows if row.gold and row.gold.continuation], chat, context)


def fitting_rows(rows: Sequence[Row], chat: ChatFormat, context: int) -> list[Row]:
    """All rows; a text of a person that is longer than the context is cut after its last word that fits.

    A cut text has no end, so that no model is scored on ending it, or learns to end there. Rows of which not even one
    word fits are left out, and so are rows with an empty text.
    """
    fitting = (_within(row, chat, context) if row.gold and row.gold.continuation else row for row in rows)
    return [row for row in fitting if row]


def _within(row: Row, chat: ChatFormat, context: int) -> Row | None:
    text = (row.completion.content if row.completion else None) or ""
    if not text or len(chat.example(row).ids) <= context:
        return row if text else None

    def cut(end: int) -> Row:
        assert row.completion
        completion = row.completion.model_copy(update={"content": text[:end]})
        return row.model_copy(
            update={"completion": completion, "provenance": row.provenance | {"finish_reason": "length"}}
        )

    ends = [word.end() for word in re.finditer(r"\S+", text)]
    fits = bisect.bisect_right(ends, context, key=lambda end: len(chat.example(cut(end)).ids))
    return cut(ends[fits - 1]) if fits else None
