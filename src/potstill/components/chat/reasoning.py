"""Thinking in rows and answers: the recipe decides whether it is learnt or dropped (`chat.reasoning`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from potstill.components.chat.thinking import without_thinking
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import Message, Row

__all__ = ["as_chosen", "count_thinking", "holds_thinking", "split_thinking"]

_AT_THE_BEGINNING = re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL)


def holds_thinking(message: Message | None) -> bool:
    """Whether an assistant's message holds thinking, apart from its text or inside it."""
    if message is None or message.role != "assistant":
        return False
    return bool(message.reasoning_content) or without_thinking(message.content or "")[0] != (message.content or "")


def count_thinking(rows: Iterable[Row]) -> int:
    """The number of rows whose answer holds thinking."""
    return sum(holds_thinking(row.completion) for row in rows)


def as_chosen(rows: Iterable[Row], reasoning: Reasoning) -> list[Row]:
    """The rows with the thinking of their assistant, or without it in answers and earlier turns."""
    if reasoning == "learn":
        return list(rows)
    return [
        row.model_copy(
            update={
                "messages": tuple(map(_without, row.messages)),
                "completion": _without(row.completion) if row.completion else None,
            }
        )
        for row in rows
    ]


def split_thinking(text: str) -> tuple[str | None, str]:
    """The thinking at the beginning of an answer that endpoints give, None where there is none, and the answer."""
    match = _AT_THE_BEGINNING.fullmatch(text)
    return (match[1].strip() or None, match[2]) if match else (None, text)


def _without(message: Message) -> Message:
    if not holds_thinking(message):
        return message
    content = message.content and without_thinking(message.content)[0].lstrip()
    return message.model_copy(update={"content": content, "reasoning_content": None})
