"""Tools from a JSON list in OpenAI's shape, a listing of an MCP server, or an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from potstill.core.errors import DataError
from potstill.core.tools import Tool, argument_validators, canonical_tools

__all__ = ["is_tools", "read_tool_file"]

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_LISTS = ("tools", "functions")
_DEEPEST = 12  # references and schemas within each other
_MOST_SCHEMAS = 500  # of one parameter or body: what is nested deeper is cut off, and then anything is allowed there
_KEYWORDS = (
    "type", "description", "enum", "properties", "required", "items", "anyOf", "oneOf", "allOf", "minimum", "maximum",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "default", "const", "additionalProperties",
)  # fmt: skip
"""Keywords of an OpenAPI schema that a JSON Schema has with the same meaning."""


def is_tools(value: Any) -> bool:
    """Whether a JSON value holds tools, and not rows."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_tool, value))
    return isinstance(value, Mapping) and ("paths" in value or any(isinstance(value.get(k), list) for k in _LISTS))


def _is_tool(value: Any) -> bool:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return False
    return any(key in function for key in ("parameters", "inputSchema", "description"))


def read_tool_file(value: Any, where: str) -> tuple[Tool, ...]:
    """The tools in a JSON value, in the canonical shape.

    Raises:
        DataError: a tool is not valid, or there is none.
    """
    if isinstance(value, Mapping) and "paths" in value:
        found = list(_operations(value, where))
    else:
        listed = (
            value if isinstance(value, list) else next(value[key] for key in _LISTS if isinstance(value.get(key), list))
        )
        found = [_plain_tool(each) for each in listed]
    if not found:
        raise DataError(
            f"{where}: there is no tool in it. Give a list of tools, or an OpenAPI document with operations."
        )
    tools = canonical_tools(found, where)
    argument_validators(tools, where)
    return tools


def _plain_tool(tool: Any) -> Any:
    """A tool without what runtimes do not pass on; MCP calls the parameters `inputSchema`."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        return tool
    parameters = function.get("parameters", function.get("inputSchema"))
    return {"name": function.get("name"), "description": function.get("description"), "parameters": parameters}


def _operations(document: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Each operation of an OpenAPI document (2.0 or 3.x) as a function."""
    paths = document["paths"]
    if not isinstance(paths, Mapping):
        raise DataError(f"{where}: paths of an OpenAPI document must be an object.")
    taken: set[str] = set()
    for path, entry in paths.items():
        for method in _METHODS:
            operation = entry.get(method) if isinstance(entry, Mapping) else None
            if not isinstance(operation, Mapping):
                continue
            name = _name(str(operation.get("operationId") or f"{method}_{path}"), taken)
            about = operation.get("summary") or operation.get("description") or f"{method.upper()} {path}"
            given = [each for part in (entry, operation) for each in _listed(part.get("parameters"))]
            parameters = _parameters(document, given, operation.get("requestBody"))
            yield {"name": name, "description": " ".join(str(about).split()), "parameters": parameters}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(text: str, taken: set[str]) -> str:
    """A name that OpenAI's API accepts, and that no other tool has."""
    plain = re.sub(r"(_|[^A-Za-z0-9-])+", "_", text).strip("_")[:60] or "operation"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    taken.add(name)
    return name


def _parameters(document: Mapping[str, Any], given: list[Any], body: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for each in (_resolved(document, item) for item in given):
        if each.get("in") == "body":
            body = {"content": {"application/json": {"schema": each.get("schema", {})}}}
        elif each.get("in") in ("query", "path", "formData") and isinstance(each.get("name"), str):
            schema = _plain_schema(document, each.get("schema", each))
            if each.get("description"):
                schema["description"] = each["description"]
            properties[each["name"]] = schema
            if each.get("required") is True:
                required.append(each["name"])
    sent = _body_schema(document, body)
    if isinstance(sent.get("properties"), dict):
        properties |= sent["properties"]
        required += [name for name in _listed(sent.get("required")) if name not in required]
    elif sent:
        properties["body"] = sent
    return {"type": "object", "properties": properties, "required": required}


def _body_schema(document: Mapping[str, Any], body: Any) -> dict[str, Any]:
    content = _resolved(document, body).get("content") if isinstance(body, Mapping) else None
    if not isinstance(content, Mapping) or not content:
        return {}
    chosen = content.get("application/json") or next(iter(content.values()))
    return _plain_schema(document, chosen.get("schema", {})) if isinstance(chosen, Mapping) else {}


def _resolved(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """The object that a reference within the document means; any other reference is an empty object."""
    for _ in range(_DEEPEST):
        if not isinstance(value, Mapping) or "$ref" not in value:
            break
        target: Any = document
        for part in str(value["$ref"]).removeprefix("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, Mapping) else None
        value = target
    return value if isinstance(value, Mapping) and "$ref" not in value else {}


def _plain_schema(document: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """A JSON Schema without references, as deep as it can be with at most `_MOST_SCHEMAS` schemas in it.

    Schemas that refer to themselves or to each other would grow with a power of the depth.
    """
    for depth in range(_DEEPEST, 0, -1):
        try:
            return _schema(document, value, depth, [_MOST_SCHEMAS])
        except _TooLarge:
            continue
    return {}


class _TooLarge(Exception):
    """A schema has more schemas in it than are left."""


def _schema(document: Mapping[str, Any], value: Any, depth: int, left: list[int]) -> dict[str, Any]:
    """A JSON Schema without references; below the depth, anything is allowed. `left` holds how many may be made."""
    left[0] -= 1
    if left[0] < 0:
        raise _TooLarge
    if depth == 0:
        return {}
    found = _resolved(document, value)
    out = {key: found[key] for key in _KEYWORDS if key in found}
    if isinstance(out.get("required"), bool):  # of a parameter in OpenAPI 2.0
        del out["required"]
    if isinstance(out.get("properties"), Mapping):
        named = out["properties"].items()
        out["properties"] = {name: _schema(document, each, depth - 1, left) for name, each in named}
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(out.get(key), list):
            out[key] = [_schema(document, each, depth - 1, left) for each in out[key]]
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), Mapping):
            out[key] = _schema(document, out[key], depth - 1, left)
    if found.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
