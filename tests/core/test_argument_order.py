"""Arguments of calls are brought into the order in which llama.cpp's server writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import write_jsonl
from potstill.core.argument_order import in_schema_order
from potstill.core.records import read_rows

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["room", "level"],
    "properties": {
        "note": {"type": "string"},
        "level": {"type": "integer"},
        "where": {
            "type": "object",
            "properties": {"shelf": {"type": "string"}, "floor": {"type": "integer"}},
            "required": ["floor"],
        },
        "room": {"type": "string"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"a": {}, "b": {}}}},
    },
}
TOOL = {"type": "function", "function": {"name": "set", "description": "", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ({"note": "x", "room": "hall", "level": 1}, ["level", "room", "note"]),
        ({"items": [], "where": {}, "note": ""}, ["note", "where", "items"]),
        ({"other": 1, "room": "a"}, ["room", "other"]),
    ],
)
def test_required_ones_come_first_and_unknown_ones_last(given_value: dict[str, Any], expected: list[str]) -> None:
    assert list(in_schema_order(given_value, SCHEMA)) == expected


def test_objects_inside_are_ordered_too() -> None:
    ordered = in_schema_order({"items": [{"b": 1, "a": 2}], "where": {"shelf": "x", "floor": 1}}, SCHEMA)
    assert json.dumps(ordered) == '{"where": {"floor": 1, "shelf": "x"}, "items": [{"a": 2, "b": 1}]}'


@pytest.mark.parametrize("schema", [None, True, {}, {"properties": 3}, {"properties": {}, "required": 5}])
def test_a_schema_without_properties_changes_nothing(schema: Any) -> None:
    assert list(in_schema_order({"b": 1, "a": 2}, schema)) == ["b", "a"]


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x", "y"]), st.integers()))
def test_only_the_order_changes(arguments: dict[str, int]) -> None:
    ordered = in_schema_order(arguments, SCHEMA)
    assert ordered == arguments
    assert list(in_schema_order(ordered, SCHEMA)) == list(ordered)


def test_rows_are_read_in_that_order(tmp_path: Path) -> None:
    def calls(arguments: str) -> dict[str, Any]:
        function = {"name": "set", "arguments": arguments}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}

    odd, good = '{"note": "x", "level": 2, "room": "hall"}', '{"level":2, "room": "hall"}'
    turns = [{"role": "user", "content": "a"}, calls(odd), {"role": "user", "content": "b"}]
    rows = [{"messages": turns, "completion": calls(odd), "tools": [TOOL]}]
    rows += [{"messages": turns[:1], "completion": calls(good), "tools": [TOOL]}]
    first, second = read_rows(write_jsonl(tmp_path / "rows.jsonl", rows))
    for message in (first.messages[1], first.completion):
        assert message is not None
        assert message.tool_calls[0].function.arguments == '{"level": 2, "room": "hall", "note": "x"}'
    assert second.completion is not None
    assert second.completion.tool_calls[0].function.arguments == good  # nothing to change, so not written anew


def test_the_order_is_that_of_llama_cpps_grammar(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    import re

    from fixtures import make_model
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.runtimes.gguf import GGUFServer

    model, file = make_model(tmp_path / "model", layers=1), tmp_path / "model.gguf"
    convert_checkpoint(model, file)
    body = {
        "messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "max_tokens": 1, "verbose": True,
    }  # fmt: skip
    with GGUFServer(file, context=256) as server:
        reply = server.post("/v1/chat/completions", body)
    grammar = str(reply["__verbose"]["generation_settings"]["grammar"])
    for rule, part in (("tool-0-schema", SCHEMA), ("tool-0-schema-where", SCHEMA["properties"]["where"])):
        (text,) = re.findall(rf"^{rule} ::= (.*)$", grammar, re.M)
        named = re.findall(rf"{rule}-(\w+)-kv", text)
        assert list(dict.fromkeys(named)) == list(in_schema_order(dict.fromkeys(part["properties"]), part))
