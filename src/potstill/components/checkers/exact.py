"""Answers in words that are known: equal to the completion, or matched by the row's own pattern."""

from __future__ import annotations

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.pattern import row_pattern
from potstill.core.records import Row

__all__ = ["check_exact"]


def check_exact(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the answer makes no call and has the words of the completion, or a match of `gold.match`.

    Spacing does not count. None where the row has neither.
    """
    reference = (row.completion.content or None) if row.completion else None
    pattern = row_pattern(row, "") if row.gold and row.gold.match else None
    if reference is None and pattern is None:
        return None
    equal = reference is not None and answer.content.split() == reference.split()
    return not answer.calls and (equal or bool(pattern and pattern.search(answer.content)))
