"""Damaged texts and values: bytes that are flipped, cut or doubled; values of another type; odd numbers and texts."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

__all__ = ["damaged_bytes", "damaged_json", "damaged_value", "written"]

_ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    1e308,
    -0.0,
    1e-320,
    "",
    " ",
    "x" * 5000,
    "\0",
    "\x1b[2J",
    "\ud83d",
    "é",
    "true",
    "-1",
    "..",
    "/etc/passwd",
    "a/b",
    "\u2028",
    '"""',
    [],
    [[]],
    {},
    {"": {}},
    [None],
    "{{ x }}",
    "\u202e",
    ["a"] * 1000,
    {"a": {"b": {"c": 1}}},
    "1" * 400,
]
_DEEP = ["[" * 100_000, '{"a":' * 50_000, "[" * 150 + "]" * 150]
_NUMBERS = ["NaN", "Infinity", "-Infinity", "1" * 5000, "1e999", "0x10", "01", "1_000"]


def damaged_bytes(r: random.Random, data: bytes) -> bytes:
    """A copy with a few bytes changed, a part cut out, doubled or replaced by noise."""
    out = bytearray(data)
    for _ in range(r.randrange(1, 6)):
        at, size = r.randrange(len(out) + 1), r.choice([1, 1, 2, 8, 100])
        change = r.randrange(5)
        if change == 0 and out:
            out[at % len(out)] ^= 1 << r.randrange(8)
        elif change == 1:
            del out[at : at + size]
        elif change == 2:
            out[at:at] = out[at : at + size]
        elif change == 3:
            out[at : at + size] = r.randbytes(min(size, 8))
        else:
            del out[at:]
    return bytes(out)


def damaged_value(r: random.Random, value: Any) -> Any:
    """A copy of nested values with a few of them replaced, dropped or moved."""
    value = copy.deepcopy(value)
    for _ in range(r.randrange(1, 4)):
        holder, key = r.choice(list(_places(value)) or [(None, None)])
        if holder is None:
            return odd_value(r)
        change = r.randrange(4)
        if change == 0:
            holder.pop(key)
        elif change == 1 and isinstance(holder, dict):
            holder[r.choice([f"{key}x", "", "\x1b[31m", str(key).upper()])] = holder.pop(key)
        else:
            holder[key] = odd_value(r)
    return value


def odd_value(r: random.Random) -> Any:
    """A value that is seldom right, of its own: what is put in may be changed next."""
    return copy.deepcopy(r.choice(_ODD_VALUES))


def damaged_json(r: random.Random, value: Any) -> bytes:
    """JSON text of a damaged value, or a damaged JSON text."""
    change = r.randrange(6)
    if change < 3:
        return json.dumps(damaged_value(r, value)).encode()
    text = json.dumps(value)
    if change == 3:
        return damaged_bytes(r, text.encode())
    at = r.randrange(len(text))
    piece = r.choice(_DEEP + _NUMBERS)
    end = at + r.randrange(0, 20)
    return (text[:at] + piece + text[end:]).encode()


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        yield from ((value, key) for key in value)
    if isinstance(value, list):
        yield from ((value, index) for index in range(len(value)))
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _places(inner)


def written(path: Path, data: bytes) -> Path:
    """The path, once its file has been written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
