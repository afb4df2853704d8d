"""Calls whose arguments are written as XML-like parameters: Qwen Coder, Seed, MiniMax and GLM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from potstill.components.chat.call_values import BadCall, as_call, call_of, parameter_value, read_json, skip_space
from potstill.core.records import Call

__all__ = ["Schemas", "read_glm", "read_xml"]

Schemas = Mapping[str, Mapping[str, Any]]
"""The properties of each tool's arguments, by the name of the tool and of the argument."""

_FUNCTION = re.compile(r"<(?:function=|invoke name=)\"?(?P<name>[^<>\"]+)\"?>\s*")
_PARAMETER = re.compile(r"<parameter(?:=| name=)\"?(?P<name>[^<>\"]+)\"?>")
_NAME = re.compile(r"(?P<name>[\w.-]+)\s*")


def read_xml(text: str, at: int, schemas: Schemas) -> tuple[Call, int]:
    """<function=NAME><parameter=KEY>VALUE</parameter></function>, with <invoke name="NAME"> as another spelling.

    The parameters may also be one JSON object.

    Raises:
        BadCall: the call is malformed.
    """
    head = _FUNCTION.match(text, at)
    if head is None:
        raise BadCall("<function= is not followed by a name")
    name, at = head["name"].strip(), head.end()
    closing = "</function>" if head[0].startswith("<function") else "</invoke>"
    arguments: dict[str, Any] = {}
    if text.startswith("{", at):
        value, at = read_json(text, at)
        arguments = as_call({"name": name, "arguments": value}).arguments
    while parameter := _PARAMETER.match(text, at):
        value, at = _until(text, parameter.end(), "</parameter>")
        _add(arguments, parameter["name"].strip(), value, schemas.get(name, {}))
    if not text.startswith(closing, at):
        raise BadCall(f"<function={name}> is not closed after its parameters")
    return call_of(name, arguments), skip_space(text, at + len(closing))


def read_glm(text: str, at: int, schemas: Schemas) -> tuple[Call, int]:
    """NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>, any number of arguments.

    Raises:
        BadCall: the call is malformed.
    """
    head = _NAME.match(text, at)
    assert head is not None  # the caller has seen the first letter
    name, at = head["name"], head.end()
    arguments: dict[str, Any] = {}
    while text.startswith("<arg_key>", at):
        key, at = _until(text, at + len("<arg_key>"), "</arg_key>")
        if not text.startswith("<arg_value>", at):
            raise BadCall("<arg_key> is not followed by <arg_value>")
        value, at = _until(text, at + len("<arg_value>"), "</arg_value>")
        _add(arguments, key.strip(), value, schemas.get(name, {}))
    return call_of(name, arguments), at


def _until(text: str, at: int, closing: str) -> tuple[str, int]:
    end = text.find(closing, at)
    if end < 0:
        raise BadCall(f"{closing} is missing")
    return text[at:end], skip_space(text, end + len(closing))


def _add(arguments: dict[str, Any], key: str, value: str, schemas: Mapping[str, Any]) -> None:
    if key in arguments:
        raise BadCall(f"the argument {key!r} is given twice")
    schema = schemas.get(key)
    arguments[key] = parameter_value(value, schema if isinstance(schema, dict) else {})
