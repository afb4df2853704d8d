"""Thinking is learnt or dropped as the recipe says, wherever it stands in a row."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.components.chat.reasoning import as_chosen, count_thinking, split_thinking
from potstill.core.records import Row

USER = {"role": "user", "content": "What is 2 + 2? <think>"}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]}


def row(*answers: dict[str, Any]) -> Row:
    history = [turn for answer in answers[:-1] for turn in (USER, answer)]
    return Row.model_validate({"messages": [*history, USER], "completion": answers[-1]})


def said(content: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


PLAIN = row(said("4"), said("4"))


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        (row(said("4", reasoning_content="2 + 2"), said("4", reasoning_content="2 + 2")), PLAIN),
        (row(said("<think>\n2 + 2\n</think>\n\n4"), said("<think>2 + 2</think>4")), PLAIN),
        (row(CALL | {"reasoning_content": "a sum"}), row(CALL)),
    ],
)
def test_thinking_is_kept_or_dropped_everywhere(given: Row, dropped: Row) -> None:
    assert as_chosen([given], "learn") == [given]
    assert as_chosen([given], "drop") == [dropped]
    assert (count_thinking([given]), count_thinking([dropped])) == (1, 0)
    assert as_chosen([dropped], "drop") == [dropped]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\n2 + 2\n</think>\n\n4", ("2 + 2", "4")),
        ("<think></think>4", (None, "4")),
        ("4", (None, "4")),
        ("Write <think> and </think>.", (None, "Write <think> and </think>.")),
        ("<think>never closed", (None, "<think>never closed")),
    ],
)
def test_the_thinking_of_an_endpoint_is_told_apart(text: str, parts: tuple[str | None, str]) -> None:
    assert split_thinking(text) == parts
