"""Rows are read whole or refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures import TOOLS, light_row, light_rows, write_jsonl
from potstill.core.errors import DataError
from potstill.core.records import Message, Row, read_rows, write_rows

GOOD = json.dumps(light_row("attic", "on"))


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ('{"messages": [', r"rows\.jsonl:2: not valid JSON .*column"),
        ("[1]", r"rows\.jsonl:2: a row must be a JSON object, found list"),
        ('{"messages": []}', r"rows\.jsonl:2: messages: "),
        ('{"messages": [{"role": "king", "content": "x"}]}', r"rows\.jsonl:2: messages\.0\.role: "),
        ('{"messages": [{"role": "user", "content": "x"}], "golden": 1}', r"rows\.jsonl:2: unknown key 'golden'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"rows\.jsonl:2: the row has no assistant turn"),
        (GOOD.replace('"{\\"room', '"{room'), r"rows\.jsonl:2: .*the arguments of a tool call are not valid JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, second_line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{second_line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, need_completion=True)
    assert caught.value.exit_code == 2


def test_files_that_hold_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="has no rows"):
        read_rows(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"messages": "\xe9"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(tmp_path / "latin.jsonl")


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = read_rows(write_jsonl(tmp_path / "in.jsonl", light_rows([""])))
    write_rows(tmp_path / "out.jsonl", rows)
    again = read_rows(tmp_path / "out.jsonl")
    assert [r.model_dump() for r in again] == [r.model_dump() for r in rows]
    assert again[3].where.endswith("out.jsonl:4")


def test_last_assistant_turn_is_the_completion_and_tells_the_behaviour(tmp_path: Path) -> None:
    row = light_row("attic", "on")
    turn = {"messages": [*row["messages"], row["completion"]]}
    twice = {"messages": [*row["messages"], row["completion"] | {"tool_calls": row["completion"]["tool_calls"] * 2}]}
    words = {"messages": [*row["messages"], {"role": "assistant", "content": "No."}]}
    read = read_rows(write_jsonl(tmp_path / "r.jsonl", [turn, twice, words]), need_completion=True)
    assert [r.behaviour for r in read] == ["tool_call", "multi_call", "answer"]
    assert len(read[0].messages) == 1


def test_identity_is_of_the_prompt_alone(tmp_path: Path) -> None:
    row = light_row("attic", "on")
    ids = {
        Row.model_validate(row | change).row_id
        for change in ({}, {"behaviour": "answer"}, {"completion": None}, {"provenance": {"a": 1}})
    }
    assert len(ids) == 1
    with_id = row["completion"] | {"tool_calls": [{"id": "a1", **row["completion"]["tool_calls"][0]}]}
    renamed = json.loads(json.dumps(with_id).replace("a1", "b2"))
    history = [{"messages": [*row["messages"], call, row["messages"][0]]} for call in (with_id, renamed)]
    assert len({Row.model_validate(each).row_id for each in history}) == 1
    assert Row.model_validate(row | {"tools": TOOLS}).row_id not in ids
    assert Row.model_validate(light_row("attic", "off")).row_id not in ids


def test_a_message_for_an_endpoint_has_no_empty_keys() -> None:
    sent = Message.model_validate(light_row("attic", "on")["completion"]).for_api()
    assert sent["content"] is None
    assert list(sent["tool_calls"][0]) == ["type", "function"]
    assert Message(role="user", content="hi").for_api() == {"role": "user", "content": "hi"}


def test_rows_take_the_tools_of_a_file_where_they_have_none(tmp_path: Path) -> None:
    own = [{"type": "function", "function": {"name": "own"}}]
    shared = write_jsonl(tmp_path / "in.jsonl", [light_row("attic", "on"), light_row("hall", "on") | {"tools": own}])
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    rows = read_rows(shared, tools=tmp_path / "tools.json")
    parameters = {"type": "object", "properties": {}}
    canonical = [{"type": "function", "function": {"name": "own", "description": "", "parameters": parameters}}]
    assert [list(row.tools) for row in rows] == [TOOLS, canonical]
    write_rows(tmp_path / "out.jsonl", rows, tuple(TOOLS))
    assert ["tools" in json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [False, True]
    assert [row.tools for row in read_rows(tmp_path / "out.jsonl", tools=tmp_path / "tools.json")] == [
        row.tools for row in rows
    ]
