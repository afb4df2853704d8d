"""Rows for tools of which there are no requests yet: a call with values from the schema, and a request that names
them. The call comes first, so it is right by construction."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.core.records import Call, Gold, GoldCall, Message, Row, ToolCall
from potstill.core.tools import Tool, argument_validators

__all__ = ["rows_of_tools"]

_WORDS = ("alpha", "blue river", "Oslo", "Maria", "north", "seven stars", "Lima", "green tea", "Kim", "harbour")
_FORMATS = {
    "date": "2026-0{}-1{}", "date-time": "2026-0{}-1{}T09:00:00Z", "time": "0{}:1{}", "email": "user{}{}@example.com",
    "uri": "https://example.com/{}{}", "uuid": "00000000-0000-4000-8000-0000000000{}{}",
}  # fmt: skip
_CODES = ("A1", "AB-123", "12345", "12", "+15550100", "USD", "en", "DE")
"""Texts that patterns of codes, numbers and countries often ask for."""
_DEEPEST = 4


def rows_of_tools(tools: Sequence[Tool], per_tool: int, seed: int) -> list[Row]:
    """Rows with a call of each tool, whose values fit its schema; fewer where a schema allows fewer, or none.

    Args:
        tools: tools in the canonical shape.
        per_tool: number of rows of a tool.
        seed: seed of the values.
    """
    draw, validators = random.Random(seed), argument_validators(tools, "tools")
    rows = []
    for tool in tools:
        function = tool["function"]
        seen: set[str] = set()
        for _ in range(4 * per_tool):
            arguments = _object(function["parameters"], draw, 0)
            key = json.dumps(arguments, sort_keys=True)
            if key in seen or len(seen) == per_tool or not validators[function["name"]].is_valid(arguments):
                continue
            seen.add(key)
            rows.append(_row(function, arguments, tuple(tools)))
    return rows


def _row(function: Mapping[str, Any], arguments: dict[str, Any], tools: tuple[Tool, ...]) -> Row:
    about = (function["description"] or function["name"].replace("_", " ")).rstrip(".")
    values = ", ".join(f"{name.replace('_', ' ')}: {_said(value)}" for name, value in arguments.items())
    call = Call(name=function["name"], arguments=arguments)
    return Row(
        messages=(Message(role="user", content=f"{about} ({values})" if values else about),),
        tools=tools,
        completion=Message(role="assistant", tool_calls=(ToolCall.of(call),)),
        behaviour="tool_call",
        gold=Gold(calls=(GoldCall(name=call.name, arguments={key: [value] for key, value in arguments.items()}),)),
        group=function["name"] if not values else None,
        provenance={"source": "made from the schema"},
    )


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(schema: Mapping[str, Any], draw: random.Random, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    # optional arguments are in half of the calls, and never in deep ones
    chosen = [name for name in properties if name in required or (depth == 0 and draw.random() < 0.5)]
    return {name: _value(properties[name], draw, depth + 1) for name in chosen}


def _value(schema: Any, draw: random.Random, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return draw.choice(_WORDS)
    if schema.get("enum"):
        return draw.choice(schema["enum"])
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _value(schema[key][0], draw, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        low = int(schema.get("minimum", 1))
        return draw.randint(low, max(low, int(schema.get("maximum", low + 20))))
    if kind == "boolean":
        return draw.random() < 0.5
    if kind == "array":
        length = max(1, int(schema.get("minItems", 1)))
        return [_value(schema.get("items", {}), draw, depth + 1) for _ in range(length)]
    if kind == "object":
        return _object(schema, draw, depth)
    if kind == "null":
        return None
    return _text(schema, draw)


def _text(schema: Mapping[str, Any], draw: random.Random) -> str:
    """A text in the format of the schema; where it has a pattern, one of the known texts that fit it."""
    import jsonschema_rs

    made = {name: form.format(draw.randint(1, 9), draw.randint(0, 5)) for name, form in _FORMATS.items()}
    if (found := made.get(str(schema.get("format")))) is not None:
        return found
    texts = list(_WORDS)
    if "pattern" in schema or "minLength" in schema or "maxLength" in schema:
        known = (*_WORDS, *made.values(), *_CODES) if "pattern" in schema else _WORDS
        texts = [text for text in known if jsonschema_rs.is_valid(dict(schema), text)]
    return draw.choice(texts or _WORDS)
