"""Test rows that are also trained on: a score on them does not show what a model can do on new rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from potstill.core.records import LabelledRow, Row

__all__ = ["leaked_rows", "leaked_texts"]


def leaked_rows(test: Sequence[Row], trained_on: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Each test row whose prompt (`Row.row_id`) is trained on, with the training row; in the order of `test`."""
    asked = {row.messages for row in test}
    # hashing a prompt with its tools is slow, so only rows whose messages are also in the test are hashed
    trained = {row.row_id: row for row in trained_on if row.messages in asked}
    if not trained:
        return []
    return [(row, trained[row.row_id]) for row in test if row.row_id in trained]


def leaked_texts(test: Sequence[LabelledRow], trained_on: Iterable[LabelledRow]) -> list[LabelledRow]:
    """Each test row of a classifier whose text is trained on, in the order of `test`."""
    texts = {row.text for row in trained_on}
    return [row for row in test if row.text in texts]
