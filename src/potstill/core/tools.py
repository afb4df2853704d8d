"""The tools of a row, in OpenAI's format: reading them, and checking the arguments of calls against their schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.core.errors import DataError
from potstill.core.files import read_json

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["Tool", "argument_validators", "read_tools"]

Tool = dict[str, Any]
"""`{"type": "function", "function": {"name": ..., "description": ..., "parameters": {JSON Schema}}}`"""


class _InvalidTool(ValueError):
    """A tool that cannot be used; the message says why."""


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools of a JSON file.

    Raises:
        DataError: the file is absent or not a list, or a tool is not valid (see `argument_validators`).
    """
    tools = read_json(path, advice="`data.tools` must name a JSON file with a list of tools.")
    if not isinstance(tools, list):
        raise DataError(f"{path}: must be a list of tools, found {type(tools).__name__}.")
    argument_validators(tools, str(path))
    return tuple(tools)


def argument_validators(tools: Iterable[Tool], where: str) -> Mapping[str, Validator]:
    """A validator of each tool's arguments, by the tool's name. `where` names the row or the file in the message.

    Raises:
        DataError: a tool has no name, two tools have the same name, or the parameters of a tool are not a valid JSON
            Schema of an object; a schema that refers to another document is not valid, because a check must not depend
            on the network.
    """
    try:
        return _validators(json.dumps(list(tools)))
    except _InvalidTool as error:
        raise DataError(f"{where}: {error}.") from None


@lru_cache(maxsize=256)
def _validators(tools_json: str) -> Mapping[str, Validator]:
    validators: dict[str, Validator] = {}
    for index, tool in enumerate(json.loads(tools_json)):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _InvalidTool(
                f'tool {index} must be {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}'
            )
        name = function["name"]
        if name in validators:
            raise _InvalidTool(f"two tools are named {name!r}; names must differ")
        validators[name] = _validator(name, function.get("parameters", {"type": "object"}))
    return validators


def _validator(name: str, schema: Any) -> Validator:
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
        validator = jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise _InvalidTool(f"the parameters of tool {name!r} are not a valid JSON Schema: {reason}") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise _InvalidTool(f'the parameters of tool {name!r} must be a JSON Schema with "type": "object"')
    return validator


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not in the schema itself, and schemas are not fetched")
