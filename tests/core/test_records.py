"""Rows are read whole or refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS, light_row, light_rows, write_jsonl
from potstill.core.errors import DataError
from potstill.core.files import write_json
from potstill.core.records import Message, Row, read_rows, read_tools, write_rows

GOOD = json.dumps(light_row("attic", "on"))


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ('{"messages": [', r"rows\.jsonl:2: not valid JSON .*column"),
        ("[1]", r"rows\.jsonl:2: a row must be a JSON object, found list"),
        ('{"messages": []}', r"rows\.jsonl:2: messages: "),
        ('{"messages": [{"role": "king", "content": "x"}]}', r"rows\.jsonl:2: messages\.0\.role: "),
        ('{"messages": [{"role": "user", "content": "x"}], "golden": 1}', r"rows\.jsonl:2: golden: "),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"rows\.jsonl:2: the row has no assistant turn"),
        (GOOD.replace('"{\\"room', '"{room'), r"rows\.jsonl:2: a tool call's arguments are not valid JSON"),
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
    assert Row.model_validate(row | {"tools": TOOLS}).row_id not in ids
    assert Row.model_validate(light_row("attic", "off")).row_id not in ids


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": TOOLS[0]["function"] | changes}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({}, "must be a list of tools"),
        ([{"name": "x"}], "tool 0 must be"),
        ([tool(), tool()], "two tools are named 'set_light'"),
        ([tool(parameters={"type": "objekt"})], "parameters of tool 'set_light' are not a valid JSON Schema"),
        ([tool(parameters={"type": "string"})], 'must be a JSON Schema with "type": "object"'),
    ],
)
def test_tools_with_invalid_schemas_are_refused(tmp_path: Path, tools: Any, message: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(tools))
    with pytest.raises(DataError, match=message):
        read_tools(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_message_for_an_endpoint_has_ids_and_no_empty_keys() -> None:
    message = Message.model_validate(light_row("attic", "on")["completion"])
    sent = message.for_api()
    assert sent["content"] is None
    assert sent["tool_calls"][0]["id"] == "call_0"
    assert Message(role="user", content="hi").for_api() == {"role": "user", "content": "hi"}
