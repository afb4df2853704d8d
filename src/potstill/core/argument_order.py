"""The order of a call's arguments.

llama.cpp's server holds calls to a grammar that it makes of the tool's schema. The grammar writes the required
properties first and then the optional ones, both in the schema's order. A student that has learnt another order cannot
write the arguments that come too late. So calls are brought into the grammar's order when rows are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.core.messages import Function, Message, ToolCall
from potstill.core.tools import Tool

__all__ = ["in_schema_order", "with_ordered_arguments"]


def with_ordered_arguments(message: Message, tools: Sequence[Tool]) -> Message:
    """The message with the arguments of its calls in the order of their tools' schemas."""
    if not message.tool_calls:
        return message
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls = tuple(_ordered(call, schemas.get(call.function.name)) for call in message.tool_calls)
    return message if calls == message.tool_calls else message.model_copy(update={"tool_calls": calls})


def _ordered(call: ToolCall, schema: Any) -> ToolCall:
    arguments = call.call.arguments
    ordered = in_schema_order(arguments, schema)
    if json.dumps(ordered) == json.dumps(arguments):
        return call  # the text stays as it was written
    function = Function(name=call.function.name, arguments=json.dumps(ordered, ensure_ascii=False))
    return call.model_copy(update={"function": function})


def in_schema_order(value: Any, schema: Any) -> Any:
    """The value with the keys of its objects in the order of a JSON Schema; keys that it does not name come last."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        return [in_schema_order(each, schema.get("items")) for each in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    wanted = schema.get("required")
    required = [name for name in properties if isinstance(wanted, list) and name in wanted]
    order = dict.fromkeys([*required, *properties, *value])
    return {name: in_schema_order(value[name], properties.get(name)) for name in order if name in value}
