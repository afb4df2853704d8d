"""Tools are read and checked in one place."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import TOOLS
from potstill.core.errors import DataError
from potstill.core.tools import argument_validators, canonical_tools, dropped_by_ollama, read_tools

REMOTE = {"type": "object", "properties": {"x": {"$ref": "https://example.com/schema.json"}}}


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": TOOLS[0]["function"] | changes}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({}, "must be a list of tools"),
        ([{"description": "x"}], "tool 0 must be"),
        ([{"type": "web_search", "name": "x"}], "tool 'x' has the type 'web_search', and only functions"),
        (
            [tool(returns={"type": "string"})],
            "tool 'set_light' has the key 'returns', which llama.cpp and Ollama do not",
        ),
        ([tool() | {"cache_control": {}}], "tool 'set_light' has the key 'cache_control'"),
        ([tool(description=["x"])], "the description of tool 'set_light' must be a string"),
        (
            [tool(parameters={"type": "object", "maximum": 1 << 64})],
            "have the number 18446744073709551616, which needs",
        ),
        ([tool(), tool()], "two tools are named 'set_light'"),
        ([tool(parameters={"type": "objekt"})], "parameters of tool 'set_light' are not a valid JSON Schema"),
        ([tool(parameters={"type": "string"})], 'must be a JSON Schema with "type": "object"'),
        ([tool(parameters=True)], 'must be a JSON Schema with "type": "object"'),
        ([tool(parameters=REMOTE)], "parameters of tool 'set_light' are not a valid JSON Schema: .*not fetched"),
    ],
)
def test_invalid_tools_are_refused(tmp_path: Path, tools: Any, message: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(tools))
    with pytest.raises(DataError, match=message) as caught:
        read_tools(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_of_tools_that_is_absent_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file\. `data\.tools` must name"):
        read_tools(tmp_path / "tools.json")


def test_validators_check_the_arguments_of_each_tool() -> None:
    validators = argument_validators([tool(), {"type": "function", "function": {"name": "all_off"}}], "here")
    assert set(validators) == {"set_light", "all_off"}
    assert validators["set_light"].is_valid({"room": "attic", "state": "on"})
    assert not validators["set_light"].is_valid({"room": "attic", "state": 1})
    assert validators["all_off"].is_valid({})


# ---- the canonical shape ----

STRING = {"type": "string"}


def test_a_pattern_takes_little_time_on_every_text() -> None:
    slow = tool(parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<=a+)b"}}})
    validator = argument_validators([slow], "here")[slow["function"]["name"]]
    began = time.monotonic()
    assert validator.is_valid({"a": "aab"})
    assert not validator.is_valid({"a": "a" * 100_000})
    assert time.monotonic() - began < 5


def test_what_a_schema_says_is_not_printed_as_it_is() -> None:
    odd = tool(parameters={"type": "object", "$ref": "\x1b[2J" + "a/" * 5000})
    with pytest.raises(DataError) as caught:
        argument_validators([odd], "here")
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 500


def canonical(*tools: dict[str, Any]) -> str:
    return json.dumps(canonical_tools(tools, "here"))


def parameters(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"room": STRING}, **keywords}


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (tool(strict=True), tool()),
        (tool() | {"strict": True}, tool()),
        (dict(reversed(tool().items())), tool()),
        (tool(**dict(reversed(TOOLS[0]["function"].items()))), tool()),
        (TOOLS[0]["function"], tool()),
        ({"type": "function", "strict": True, **TOOLS[0]["function"]}, tool()),
        (tool(description=None), tool(description="")),
        (tool(parameters=None), tool(parameters={"type": "object", "properties": {}})),
        (tool(parameters={}), tool(parameters={"type": "object"})),
        (tool(parameters=parameters(required=["room"])), tool(parameters={"required": ["room"], **parameters()})),
        (tool(parameters=parameters(required=[], description="", title=None)), tool(parameters=parameters())),
        (
            tool(parameters=parameters(properties={"level": {"minimum": 0.0, "type": ["number"], "enum": [1.0, 2.5]}})),
            tool(parameters=parameters(properties={"level": {"type": "number", "enum": [1, 2.5], "minimum": 0}})),
        ),
        (
            tool(parameters=parameters(properties={"room": STRING, "other": None})),
            tool(parameters=parameters(properties={"room": STRING})),
        ),
        (
            tool(
                parameters=parameters(properties={"all": {"items": {"type": "string", "enum": ["a"]}, "type": "array"}})
            ),
            tool(
                parameters=parameters(properties={"all": {"type": "array", "items": {"enum": ["a"], "type": "string"}}})
            ),
        ),
    ],
)
def test_tools_of_one_meaning_have_one_text(given: dict[str, Any], same: dict[str, Any]) -> None:
    assert canonical(given) == canonical(same)


def test_the_canonical_text_is_what_runtimes_pass_on() -> None:
    given = {
        "function": {
            "parameters": {
                "required": ["room"],
                "additionalProperties": False,
                "properties": {"room": {"description": "Which", "default": None, "type": "string", "anyOf": [STRING]}},
                "type": "object",
                "$defs": {"b": STRING, "a": {"type": "integer", "maximum": 9.0}},
            },
            "name": "set_light",
        }
    }
    assert canonical(given) == (
        '[{"type": "function", "function": {"name": "set_light", "description": "", "parameters": {"type": "object", '
        '"$defs": {"a": {"maximum": 9, "type": "integer"}, "b": {"type": "string"}}, "required": ["room"], '
        '"properties": {"room": {"anyOf": [{"type": "string"}], "type": "string", "description": "Which", '
        '"default": null}}, "additionalProperties": false}}}]'
    )


def test_what_ollama_drops_is_named() -> None:
    level = {"type": "object", "properties": {"x": {"type": "number", "minimum": 0}}, "default": {}}
    listed = {"type": "array", "items": {"type": "string", "pattern": "a"}, "anyOf": [{"maxLength": 3}]}
    both = canonical_tools([tool(parameters=parameters(properties={"a": level, "b": listed}, title="T"))], "here")
    assert dropped_by_ollama(both) == ("title", "default", "minimum", "maxLength")
    assert dropped_by_ollama(canonical_tools([tool(parameters=parameters())], "here")) == ()


KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "description": st.sampled_from(["", "text"]),
        "title": st.none() | st.just("t"),
        "minimum": st.sampled_from([0.0, 1.5, 2]),
        "maximum": st.sampled_from([3.0, 2]),
        "enum": st.lists(st.sampled_from([1.0, 2.5, "a", None, True]), min_size=1, max_size=3, unique_by=str),
        "default": st.none() | st.just(1.0),
        "type": st.sampled_from(["number", "string", ["number"], ["string", "null"], "object", "array"]),
        "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
        "multipleOf": st.sampled_from([1.0, 0.5]),
    },
)
SCHEMAS = st.recursive(
    KEYWORDS,
    lambda inner: st.tuples(
        KEYWORDS,
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
                "items": inner,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
                "additionalProperties": st.booleans() | inner,
                "not": inner,
            },
        ),
    ).map(lambda both: both[0] | both[1]),
    max_leaves=6,
)
VALUES = st.recursive(
    st.sampled_from([0, 1, 1.0, 2.5, 3, "a", "", None, True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(schema=SCHEMAS, values=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2), max_size=6))
def test_the_canonical_shape_is_final_and_accepts_the_same_arguments(schema: dict[str, Any], values: list[Any]) -> None:
    import jsonschema_rs

    tried = tool(parameters=schema | {"type": "object"})
    once = canonical_tools([tried], "here")
    assert json.dumps(canonical_tools(once, "here")) == json.dumps(once)
    written = {key: value for key, value in tried["function"]["parameters"].items() if value is not None}
    before = jsonschema_rs.validator_for(_without_nulls(written))
    after = jsonschema_rs.validator_for(once[0]["function"]["parameters"])
    assert [before.is_valid(value) for value in values] == [after.is_valid(value) for value in values]


def _without_nulls(schema: Any) -> Any:
    """The schema without `title: null`, which is not valid."""
    if isinstance(schema, dict):
        return {key: _without_nulls(value) for key, value in schema.items() if (key, value) != ("title", None)}
    return [_without_nulls(value) for value in schema] if isinstance(schema, list) else schema
