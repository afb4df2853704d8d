"""Rows in the formats that people have are the rows that they mean, or are refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, write_jsonl
from potstill.core.errors import DataError
from potstill.core.records import Row, read_rows

USER = {"role": "user", "content": "lights on in the hall"}
FUNCTION = {"name": "set_light", "arguments": {"room": "hall", "state": "on"}}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": FUNCTION}]}
WORDS = {"role": "assistant", "content": "Done."}
SYSTEM = {"role": "system", "content": "Be brief."}


def read(path: Path, *rows: dict[str, Any], **options: Any) -> list[Row]:
    return read_rows(write_jsonl(path / "rows.jsonl", list(rows)), **options)


def told(row: Row) -> dict[str, Any]:
    return row.model_dump(exclude={"where"})


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (
            {
                "conversations": [
                    {"from": "human", "value": USER["content"]},
                    {"from": "function_call", "value": json.dumps(FUNCTION)},
                    {"from": "observation", "value": "on", "weight": None},
                    {"from": "gpt", "value": "Done."},
                ],
                "system": "Be brief.",
                "tools": json.dumps(TOOLS),
            },
            {"messages": [SYSTEM, USER, CALL, {"role": "tool", "content": "on"}, WORDS], "tools": TOOLS},
        ),
        ({"conversations": [USER, WORDS]}, {"messages": [USER, WORDS]}),
        ({"prompt": USER["content"], "completion": "Done."}, {"messages": [USER, WORDS]}),
        ({"prompt": [SYSTEM, USER], "completion": [WORDS]}, {"messages": [SYSTEM, USER, WORDS]}),
        ({"prompt": [USER]}, {"messages": [USER]}),
        (
            {"instruction": "Answer.", "input": "Lights?", "output": "Done.", "system": "Be brief."},
            {"messages": [SYSTEM, {"role": "user", "content": "Answer.\n\nLights?"}, WORDS]},
        ),
        (
            {"instruction": "Hi", "input": "", "output": "Done."},
            {"messages": [{"role": "user", "content": "Hi"}, WORDS]},
        ),
        (
            {"messages": [USER, CALL], "functions": [TOOLS[0]["function"]], "tools": None, "completion": None},
            {"messages": [USER, CALL], "tools": TOOLS},
        ),
        (
            {"instruction": "hi", "system_prompt": "S", "generation": "ok", "model_name": "m"},
            {
                "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}],
                "completion": {"role": "assistant", "content": "ok"},
                "provenance": {"model_name": "m"},
            },
        ),
        (
            {"messages": [USER], "generation": "ok", "distilabel_metadata": {"a": 1}, "provenance": {"source": "x"}},
            {
                "messages": [USER],
                "completion": {"role": "assistant", "content": "ok"},
                "provenance": {"distilabel_metadata": {"a": 1}, "source": "x"},
            },
        ),
        (
            {"messages": [USER], "gold": None, "behaviour": None, "provenance": None, "tools": None},
            {"messages": [USER]},
        ),
    ],
)
def test_rows_of_one_meaning_are_one_row(tmp_path: Path, given: dict[str, Any], same: dict[str, Any]) -> None:
    first, second = read(tmp_path, given, same)
    assert told(first) == told(second)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"messages": [USER], "golden": 1},
            "unknown key 'golden'; did you mean 'gold'? Put what should stay with the row",
        ),
        ({"messages": [USER], "source": "x"}, "unknown key 'source'; known keys are messages, tools, "),
        ({"query": "hi", "answers": "[]"}, "unknown key 'query'"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "conversations.0: unknown speaker 'narrator'"),
        ({"conversations": [{"from": ["gpt"], "value": "x"}]}, "conversations.0: unknown speaker ['gpt']"),
        ({"conversations": [{"from": "gpt", "value": "x", "loss": 0}]}, "conversations.0: unknown key 'loss'"),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, "conversations.0: the text is not valid JSON"),
        ({"conversations": "hi"}, "conversations must be a list of turns"),
        ({"messages": [USER], "tools": "[{"}, "tools: the text is not valid JSON"),
        ({"prompt": [USER], "completion": [WORDS, WORDS]}, "the completion must be one message"),
        ({"messages": [USER], "completion": USER}, "the completion has the role user"),
        ({"messages": [USER, WORDS | {"content": " \n"}]}, "the answer of the assistant is empty"),
        (
            {"messages": [USER], "completion": {"role": "assistant", "tool_calls": []}},
            "has no content, and no tool_calls",
        ),
    ],
)
def test_other_rows_are_refused_with_what_to_do(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"messages": [USER]}, row)
    assert f"rows.jsonl:2: {says}" in str(caught.value) or (
        "rows.jsonl:2: " in str(caught.value) and says in str(caught.value)
    )
    assert str(caught.value).endswith("See docs/row-format.md for the shape of a row.")


def test_golds_tell_the_behaviour_and_can_be_the_answer(tmp_path: Path) -> None:
    one = {"name": "set_light", "arguments": {"room": ["hall"], "state": ["on"]}}
    rows = [{"messages": [USER], "gold": {"calls": calls}} for calls in ([one], [one, one])]
    words = {"messages": [USER, WORDS], "gold": {"match": "done"}}
    assert [row.behaviour for row in read(tmp_path, *rows, words)] == ["tool_call", "multi_call", "answer"]
    assert read(tmp_path, rows[0])[0].completion is None
    learnt = read(tmp_path, rows[0], need_completion=True)[0].completion
    assert learnt is not None and learnt.tool_calls[0].call.model_dump() == FUNCTION
    open_gold = {"messages": [USER], "gold": {"calls": [one | {"arguments": {"room": ["hall", "Hall"]}}]}}
    with pytest.raises(DataError, match="the row has no assistant turn"):
        read(tmp_path, open_gold, need_completion=True)
