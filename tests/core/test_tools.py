"""Tools are read and checked in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import TOOLS
from potstill.core.errors import DataError
from potstill.core.tools import argument_validators, read_tools

REMOTE = {"type": "object", "properties": {"x": {"$ref": "https://example.com/schema.json"}}}


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
