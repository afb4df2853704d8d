"""The tools of a row: read in one shape, the one in which runtimes pass them on, and the validators of their arguments.

llama.cpp's server and Ollama rewrite the tools of a request before a chat template gets them. So tools are brought into
the shape that both leave unchanged, before anything is trained: the prompt of training is the prompt of serving.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from potstill.core.errors import DataError
from potstill.core.files import read_json
from potstill.core.json_values import BadJson, plain_numbers
from potstill.core.words import printable

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["Tool", "argument_validators", "canonical_tools", "dropped_by_ollama", "read_tools", "schema_validator"]

Tool = dict[str, Any]
"""`{"type": "function", "function": {"name": ..., "description": ..., "parameters": {JSON Schema}}}`"""

_SHAPE = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {JSON Schema}}}'
_NOT_PASSED_ON = ("strict",)
"""Keys of a tool that tell an endpoint how to decode, and that no runtime shows to a template."""
# Ollama's api.ToolFunction and api.ToolProperty: the keywords that it passes on, in its order
_PARAMETERS = ("type", "$defs", "items", "required", "properties")
_PROPERTY = ("anyOf", "type", "items", "description", "enum", "properties", "required")
# keywords of JSON Schema by what they hold; all others hold a value
_ONE_SCHEMA = (
    "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip
_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_NULL_IS_A_VALUE = ("const", "default")
_BACKTRACKS = 10_000  # steps of a `pattern` with look-around or back-references; a text that takes more does not match


class _InvalidTool(ValueError):
    """A tool that cannot be used; the message says why."""


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools of a JSON file, in the canonical shape.

    Raises:
        DataError: the file is absent or not a list, or a tool is not valid (see `argument_validators`).
    """
    tools = read_json(path, advice="`data.tools` must name a JSON file with a list of tools.")
    if not isinstance(tools, list):
        raise DataError(f"{path}: must be a list of tools, found {type(tools).__name__}.")
    out = canonical_tools(tools, str(path))
    argument_validators(out, str(path))
    return out


# ---- the canonical shape ----


def canonical_tools(tools: Iterable[Any], where: str) -> tuple[Tool, ...]:
    """The tools as llama.cpp's server and Ollama both pass them to a chat template; the schemas mean the same.

    Each has type, name, description and parameters, in this order, with "" for an absent description. The keywords of
    a schema are in Ollama's order, keywords whose value is null are left out, and 1.0 is written as 1.

    Args:
        tools: in OpenAI's format, or the functions alone, as in its older `functions`.
        where: names the row or the file in the message.

    Raises:
        DataError: a tool is not of this form, or has a key that runtimes do not pass on.
    """
    try:
        return _canonical(json.dumps(list(tools), allow_nan=False))
    except _InvalidTool as error:
        raise DataError(f"{where}: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: the tools are not valid JSON ({error}).") from None


@lru_cache(maxsize=256)
def _canonical(tools_json: str) -> tuple[Tool, ...]:
    return tuple(_canonical_tool(index, tool) for index, tool in enumerate(json.loads(tools_json)))


def _canonical_tool(index: int, tool: Any) -> Tool:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _InvalidTool(f"tool {index} must be {_SHAPE}")
    name = function["name"]
    others = dict(function) if function is tool else {**tool, **function}
    for key in ("type", "function", "name", "description", "parameters"):
        others.pop(key, None)
    if extra := [key for key, value in others.items() if value is not None and key not in _NOT_PASSED_ON]:
        raise _InvalidTool(
            f"tool {name!r} has the key {extra[0]!r}, which llama.cpp and Ollama do not pass on to a model. Delete it, "
            "or write what it says into the description"
        )
    if tool.get("type", "function") != "function":
        raise _InvalidTool(f"tool {name!r} has the type {tool['type']!r}, and only functions can be called")
    description = function.get("description")
    if not isinstance(description, str | None):
        raise _InvalidTool(f"the description of tool {name!r} must be a string")
    parameters = function.get("parameters") or {"type": "object"}
    if isinstance(parameters, dict):  # another value is found when the schema is checked
        try:
            parameters = _canonical_schema(parameters, _PARAMETERS)
        except BadJson as error:
            raise _InvalidTool(f"the parameters of tool {name!r} have {error}") from None
        if parameters.get("type") == "object" and "properties" not in parameters:
            parameters = _in_order(parameters | {"properties": {}}, _PARAMETERS)
    return {
        "type": "function",
        "function": {"name": name, "description": description or "", "parameters": parameters},
    }


def _canonical_schema(schema: Any, order: Sequence[str]) -> Any:
    """A schema in one of Ollama's two orders; `true` and `false` are schemas too."""
    if not isinstance(schema, dict):
        return schema
    out = {
        key: _canonical_keyword(key, value)
        for key, value in schema.items()
        if (value is not None or key in _NULL_IS_A_VALUE) and not _is_left_out(key, value, order)
    }
    return _in_order(out, order)


def _is_left_out(key: str, value: Any, order: Sequence[str]) -> bool:
    """Whether a keyword says nothing, and Ollama leaves it out."""
    return (key in ("required", "description") or (key == "properties" and order is _PROPERTY)) and value in (
        [],
        "",
        {},
    )


def _canonical_keyword(key: str, value: Any) -> Any:
    if key in _NAMED_SCHEMAS and isinstance(value, dict):
        named = {name: _canonical_schema(each, _PROPERTY) for name, each in value.items() if each is not None}
        return named if key == "properties" else _sorted(named)
    if key in _SCHEMAS and isinstance(value, list):
        return [_canonical_schema(each, _PROPERTY) for each in value]
    if key in _ONE_SCHEMA:
        return _sorted(_canonical_schema(value, _PROPERTY)) if key == "items" else _canonical_schema(value, _PROPERTY)
    if key == "type" and isinstance(value, list) and len(value) == 1:
        return value[0]
    return plain_numbers(value)


def _sorted(value: Any) -> Any:
    """The value with the keys of all objects sorted, as Ollama writes what it does not look into."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _in_order(schema: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    first = [key for key in order if key in schema]
    return {key: schema[key] for key in [*first, *(key for key in schema if key not in first)]}


def dropped_by_ollama(tools: Iterable[Tool]) -> tuple[str, ...]:
    """The keywords of the tools' schemas that Ollama does not pass to a chat template, each once, in order.

    llama.cpp passes on all of them.
    """
    found = [tool["function"]["parameters"] for tool in tools]
    return tuple(dict.fromkeys(key for schema in found for key in _dropped(schema, _PARAMETERS)))


def _dropped(schema: Any, order: Sequence[str]) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    yield from (key for key in schema if key not in order)
    inner = schema.get("properties")
    parts = list(inner.values()) if isinstance(inner, dict) else []
    if "anyOf" in order and isinstance(schema.get("anyOf"), list):
        parts += schema["anyOf"]
    for part in parts:
        yield from _dropped(part, _PROPERTY)


# ---- validators ----


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


def schema_validator(schema: Any) -> Validator:
    """A validator of JSON values.

    Raises:
        ValueError: not a valid JSON Schema, or one that refers to another document; the message says what is wrong.
    """
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
        limited = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        return jsonschema_rs.validator_for(schema, retriever=_refuse_remote, pattern_options=limited)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise ValueError(printable(str(error).splitlines()[0])) from None


def _validator(name: str, schema: Any) -> Validator:
    try:
        validator = schema_validator(schema)
    except ValueError as error:
        raise _InvalidTool(f"the parameters of tool {name!r} are not a valid JSON Schema: {error}") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise _InvalidTool(f'the parameters of tool {name!r} must be a JSON Schema with "type": "object"')
    return validator


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not in the schema itself, and schemas are not fetched")
