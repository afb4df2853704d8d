"""Parse the tool calls in a model's text, with one parser per format.

A malformed call becomes an error in the parsed answer. It is never "no call" and never an exception, because a model
may write anything. The text is what the model wrote, without end-of-turn tokens; a leading <think>...</think> is
skipped.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from potstill.core.errors import UsageError
from potstill.core.records import Call

__all__ = ["PARSERS", "ParsedAnswer", "parse_answer"]

MAX_DEPTH = 64  # nesting of one call; a deeper one is a model that repeats itself, and it breaks JSON writers


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The calls before any error, the text around the calls, and the error (None where everything could be parsed)."""

    calls: tuple[Call, ...]
    content: str
    parse_error: str | None = None


class _BadCall(ValueError):
    """A malformed call; the message says what is wrong."""


# ---- JSON, strictly ----


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise _BadCall(f"the key {twice[0]!r} stands twice in one object")
    return value


def _reject_constant(text: str) -> NoReturn:
    raise _BadCall(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _reject_constant(text)


_JSON = json.JSONDecoder(object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant, parse_float=_finite)
_SPACE = re.compile(r"\s*")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _read_json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at a position, and the position after the value and the space behind it."""
    try:
        value, end = _JSON.raw_decode(text, _skip_space(text, at))
    except _BadCall:
        raise
    except json.JSONDecodeError as error:
        raise _BadCall(f"not valid JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):  # a number with too many digits; brackets nested too deep
        raise _BadCall("not valid JSON: a number is too long or the nesting is too deep") from None
    return value, _skip_space(text, end)


def _as_call(value: Any, argument_keys: tuple[str, ...] = ("arguments",)) -> Call:
    """A call from its JSON object. Keys other than name and arguments are ignored, as runtimes do."""
    if not isinstance(value, dict):
        raise _BadCall(f"a call must be a JSON object, found {type(value).__name__}")
    if not isinstance(value.get("name"), str):
        raise _BadCall('a call needs a "name" that is a string')
    _check_writable(value)
    found = [key for key in argument_keys if key in value]
    if len(found) != 1 or not isinstance(value[found[0]], dict):
        raise _BadCall(f'a call needs "{argument_keys[0]}" that is a JSON object')
    return Call(name=value["name"], arguments=value[found[0]])


def _check_writable(value: Any) -> None:
    """Reject values that are valid JSON, but cannot be encoded as UTF-8 or written as JSON again."""
    level, depth = [value], 0
    while level := [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise _BadCall(f"the call is nested more than {MAX_DEPTH} deep")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _BadCall("a string holds half of a surrogate pair") from None


# ---- formats ----

_Found = tuple[list[Call], list[str]]  # filled while the text is parsed, so that an error keeps what came before it


def _hermes(text: str, found: _Found) -> None:
    """<tool_call>{"name": ..., "arguments": {...}}</tool_call>, any number, with text around them (Hermes, Qwen)."""
    calls, words = found
    at = 0
    while (start := text.find("<tool_call>", at)) >= 0:
        words.append(text[at:start])
        value, end = _read_json(text, start + len("<tool_call>"))
        if not text.startswith("</tool_call>", end):
            raise _BadCall("<tool_call> is not closed after its JSON object")
        calls.append(_as_call(value))
        at = end + len("</tool_call>")
    words.append(text[at:])
    if any("</tool_call>" in part for part in words):
        raise _BadCall("</tool_call> without a <tool_call> before it")


def _llama3(text: str, found: _Found) -> None:
    """{"name": ..., "parameters": {...}}, joined by ";", bare or after <|python_tag|> (Llama 3)."""
    calls, words = found
    before, tag, after = text.partition("<|python_tag|>")
    if not tag and not _opens_like_object(text):
        words.append(text)
        return
    if tag:
        words.append(before)
    at, rest = 0, after if tag else text
    while True:
        value, at = _read_json(rest, at)
        if not tag and not calls and not _has_call_keys(value):
            words.append(text)  # an answer that happens to be JSON
            return
        calls.append(_as_call(value, ("parameters", "arguments")))
        if at == len(rest):
            return
        if rest[at] != ";":
            raise _BadCall("text after a call")
        at += 1


def _opens_like_object(text: str) -> bool:
    return re.match(r"\s*\{\s*[\"']", text) is not None


def _has_call_keys(value: Any) -> bool:
    return isinstance(value, dict) and "name" in value and bool({"parameters", "arguments"} & value.keys())


def _mistral(text: str, found: _Found) -> None:
    """[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...], text only before it (Mistral)."""
    calls, words = found
    before, marker, after = text.partition("[TOOL_CALLS]")
    words.append(before)
    if not marker:
        return
    value, end = _read_json(after, 0)
    if not isinstance(value, list) or not value:
        raise _BadCall("[TOOL_CALLS] must be followed by a list of calls")
    calls.extend(_as_call(item) for item in value)
    if end != len(after):
        raise _BadCall("text after the list of calls")


PARSERS: dict[str, Callable[[str, _Found], None]] = {
    "hermes": _hermes,
    "qwen": _hermes,
    "llama3": _llama3,
    "mistral": _mistral,
}
_MARKERS = {
    "<tool_call>": "hermes",
    "</tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3",
}


def _detect(text: str) -> str:
    """The format whose marker comes first. Bare JSON and text without a marker count as Llama's format."""
    places = {text.find(marker): name for marker, name in _MARKERS.items() if marker in text}
    return places[min(places)] if places else "llama3"


def parse_answer(text: str, format: str = "auto") -> ParsedAnswer:
    """The calls and the text of an answer. A malformed call is reported in `parse_error`, and never raised.

    Args:
        text: the answer.
        format: a key of PARSERS, or "auto" for the format of the first marker in the text.

    Raises:
        UsageError: an unknown format.
    """
    if format != "auto" and format not in PARSERS:
        raise UsageError(f"Unknown tool-call format {format!r}. Choose one of: auto, {', '.join(PARSERS)}.")
    calls: list[Call] = []
    words: list[str] = []
    error: str | None = None
    body = text.lstrip()
    try:
        if body.startswith("<think>"):
            _, closed, body = body.partition("</think>")
            if not closed:
                raise _BadCall("<think> is not closed, so there is no answer")
        PARSERS[_detect(body) if format == "auto" else format](body, (calls, words))
    except _BadCall as bad:
        error = str(bad)
    content = "\n".join(part for part in (word.strip() for word in words) if part)
    return ParsedAnswer(tuple(calls), content, error)
