"""The values of calls, read strictly: JSON, Python literals, and the text of XML-like parameters."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from potstill.core.json_values import DECODER, BadJson, unique_keys
from potstill.core.records import Call

__all__ = ["BadCall", "as_call", "call_of", "parameter_value", "python_calls", "read_json", "skip_space"]

MAX_DEPTH = 64  # nesting of one call; a deeper one is a model that repeats itself, and it breaks JSON writers


class BadCall(ValueError):
    """A malformed call; the message says what is wrong."""


# ---- JSON ----


_SPACE = re.compile(r"\s*")


def skip_space(text: str, at: int) -> int:
    """The position of the next character that is not white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def read_json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at a position, and the position after the value and the space behind it.

    Raises:
        BadCall: it is not JSON.
    """
    try:
        value, end = DECODER.raw_decode(text, skip_space(text, at))
    except BadJson as error:
        raise BadCall(str(error)) from None
    except json.JSONDecodeError as error:
        raise BadCall(f"not valid JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):  # a number with too many digits; brackets nested too deep
        raise BadCall("not valid JSON: a number is too long or the nesting is too deep") from None
    return value, skip_space(text, end)


def as_call(value: Any, argument_keys: tuple[str, ...] = ("arguments",), name_key: str = "name") -> Call:
    """A call from its JSON object. Keys other than name and arguments are ignored, as runtimes do.

    Raises:
        BadCall: it is not a call.
    """
    if not isinstance(value, dict):
        raise BadCall(f"a call must be a JSON object, found {type(value).__name__}")
    name = value.get(name_key)
    if not isinstance(name, str):
        raise BadCall(f'a call needs a "{name_key}" that is a string')
    found = [key for key in argument_keys if key in value]
    if len(found) != 1 or not isinstance(value[found[0]], dict):
        raise BadCall(f'a call needs "{argument_keys[0]}" that is a JSON object')
    return call_of(name, value[found[0]])


def call_of(name: str, arguments: dict[str, Any]) -> Call:
    """A call whose values can be written as JSON in UTF-8.

    Raises:
        BadCall: they cannot.
    """
    level, depth = [name, arguments], 0
    while level := [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadCall(f"the call is nested more than {MAX_DEPTH} deep")
    try:
        json.dumps([name, arguments], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadCall("a string holds half of a surrogate pair") from None
    except ValueError:
        raise BadCall("a number has too many digits") from None
    return Call(name=name, arguments=arguments)


# ---- text of a parameter, as in <parameter=room>kitchen</parameter> ----


def parameter_value(text: str, schema: Mapping[str, Any]) -> Any:
    """The value of a parameter that is written without quotation marks: its schema says whether it is a string.

    Raises:
        BadCall: the JSON in it is broken in a way that is never a string, such as a repeated key.
    """
    text = text.removeprefix("\n").removesuffix("\n")
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    options = schema.get("enum")
    strings = isinstance(options, list) and bool(options) and all(isinstance(option, str) for option in options)
    if strings or ("string" in kinds and not ("null" in kinds and text == "null")):
        return text
    try:
        value, end = DECODER.raw_decode(text.strip())
    except BadJson as error:
        raise BadCall(str(error)) from None
    except (ValueError, RecursionError):
        return text
    return value if end == len(text.strip()) else text


# ---- Python, as in set_light(room="kitchen") ----

_NAMES = {"true": True, "false": False, "null": None}


def python_calls(source: str) -> list[Call]:
    """The calls of one or more lines of Python, alone or in a list, with named literal arguments.

    Raises:
        BadCall: the source is anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings
            statements = ast.parse(source.strip()).body
        values = [s.value for s in statements if isinstance(s, ast.Expr)]
        if not values or len(values) != len(statements):
            raise BadCall("the code is not a call of a tool")
        calls = [node for value in values for node in (value.elts if isinstance(value, ast.List) else [value])]
        return [_python_call(node) for node in calls]
    except BadCall:
        raise
    except BadJson as error:
        raise BadCall(str(error)) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadCall("the code is not valid Python") from None


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise BadCall("a call must name a tool and its arguments")
    names = [keyword.arg for keyword in node.keywords]
    if None in names or len(set(names)) != len(names):
        raise BadCall("a call must name each argument once")
    return call_of(node.func.id, {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords})


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            if isinstance(value, float) and not math.isfinite(value):
                raise BadCall("a number is too large")
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = [(_literal(k), _literal(v)) for k, v in zip(keys, values, strict=True) if k is not None]
            if len(pairs) == len(keys) and all(isinstance(key, str) for key, _ in pairs):
                return unique_keys(pairs)
    raise BadCall("an argument is not a literal value")
