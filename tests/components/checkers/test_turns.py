"""Turns that do not fit together are found before anything is learnt from them."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures import TOOLS
from potstill.components.checkers.turns import check_turns
from potstill.core.errors import DataError
from potstill.core.records import Row

USER = {"role": "user", "content": "on in the hall"}
WORDS = {"role": "assistant", "content": "Done."}


def call(call_id: str | None = None, name: str = "set_light", **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments or {"room": "hall", "state": "on"}}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": function}]}


def result(call_id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "ok"}


def rows(*conversations: list[dict[str, Any]], tools: Any = TOOLS) -> list[Row]:
    return [
        Row.model_validate(
            {"messages": turns[:-1], "completion": turns[-1], "tools": tools, "where": f"rows.jsonl:{i}"}
        )
        for i, turns in enumerate(conversations, 1)
    ]


GOOD = [USER, call("a"), result("a"), USER, call(), result(), USER, call()]


def test_turns_that_fit_together_are_not_mentioned() -> None:
    assert check_turns("data.prompts", rows(GOOD, [USER, WORDS])) == []
    assert check_turns("data.prompts", rows([USER, WORDS], tools=())) == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            call(name="set_lamp"),
            "the answer calls tool 'set_lamp', which the row does not have; its tools are set_light",
        ),
        (call(room="hall"), "the answer calls tool 'set_light' with arguments that do not fit its schema: "),
        (call(room="hall", state="on", level=None), r"null in level may come from a data set that fills absent keys"),
    ],
)
def test_every_answer_that_cannot_be_run_is_named(answer: dict[str, Any], says: str) -> None:
    wrong = [USER, answer]
    with pytest.raises(DataError) as caught:
        check_turns("data.prompts", rows(GOOD, wrong, GOOD, wrong, wrong))
    message = str(caught.value)
    assert message.startswith("rows.jsonl:2: the answer calls tool ") and says in message
    assert message.endswith("; 2 more rows have such answers: rows.jsonl:4, 5.")


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([USER, call(name="set_lamp"), result(), USER, WORDS], "rows call an unknown tool in an earlier turn"),
        ([USER, call("a"), result("b"), WORDS], "rows have a tool result without a call before it"),
        ([USER, result(), WORDS], "rows have a tool result without a call before it"),
        ([USER, call(), result(), result(), WORDS], "rows have a tool result without a call before it"),
        ([USER, call(), USER, WORDS], "rows have a call in an earlier turn without a result"),
        ([USER, WORDS | {"content": " "}, USER, WORDS], "rows have an earlier assistant turn that is empty"),
    ],
)
def test_earlier_turns_are_warned_of_with_their_lines(turns: list[dict[str, Any]], says: str) -> None:
    warnings = check_turns("data.prompts", rows(GOOD, turns, GOOD, turns))
    assert any(f"data.prompts: 2 of 4 {says}" in each and each.endswith(": rows.jsonl:2, 4.") for each in warnings)


def test_many_lines_are_counted_and_calls_without_tools_are_not_judged() -> None:
    (warning,) = check_turns("data.test", rows(*[[USER, call(name="any")]] * 12, tools=()))
    assert "data.test: 12 of 12 rows call tools but list none" in warning
    assert warning.endswith(": rows.jsonl:1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more.")
