"""Reading of JSON text from people, models and other programs, with limits. What a person or a model writes is read
strictly: what other programs would read differently is rejected too."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

__all__ = ["DECODER", "BadJson", "plain_numbers", "read_foreign", "read_strictly", "unique_keys"]

_MAX_DEPTH = 100  # JSON writers give up somewhere between 100 and 1000
_INT64 = 1 << 63
_HALF_OF_A_PAIR = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


class BadJson(ValueError):
    """What is wrong with a JSON text, as a clause."""


def read_foreign(text: str) -> Any:
    """The value of a JSON text that another program wrote.

    Of a repeated key the last value counts, and NaN and infinity are read, because Python writes them.

    Raises:
        BadJson: it is not valid JSON; or it has half of a surrogate pair, a number with too many digits, or deep
            nesting.
    """
    return _read(text, _LENIENT)


def read_strictly(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        BadJson: it is not valid JSON; or it has a key twice in one object, NaN or infinity, half of a surrogate pair, a
            number with too many digits, or deep nesting.
    """
    return _read(text, DECODER)


def _read(text: str, decoder: json.JSONDecoder) -> Any:
    try:
        value = decoder.decode(text)
    except BadJson:
        raise
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise BadJson(f"{error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise BadJson("it is nested too deeply") from None
    except ValueError:
        raise BadJson("a number has too many digits") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deeper(value, _MAX_DEPTH):
        raise BadJson("it is nested too deeply")
    if _HALF_OF_A_PAIR.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadJson("a string holds half of a surrogate pair") from None
    return value


def plain_numbers(value: Any) -> Any:
    """The value with whole numbers written without a point: 1.0 becomes 1, as llama.cpp's templates print it.

    Raises:
        BadJson: a whole number needs more than 64 bits, which llama.cpp reads as another number.
    """
    if isinstance(value, dict):
        return {key: plain_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain_numbers(each) for each in value]
    if isinstance(value, float) and value.is_integer() and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise BadJson(f"the number {value}, which needs more than 64 bits. Write it as text")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys.

    Raises:
        BadJson: a key appears twice.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise BadJson(f"the key {next(key for key in keys if keys.count(key) > 1)!r} appears twice in one object")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise BadJson(f"{text} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=_refuse_constant, parse_float=_finite)
"""Raises BadJson for a repeated key, NaN and infinity, and JSONDecodeError for what is not JSON."""
_LENIENT = json.JSONDecoder()


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return True
