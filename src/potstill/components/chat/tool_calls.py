"""Read the tool calls in a model's text, with one parser per format.

A malformed call becomes an error in the parsed answer. It is never "no call" and never an exception, because a model
may write anything. The text is what the model wrote, without end-of-turn tokens; thinking is skipped, and calls in it
are not calls. A tag that the text only mentions ("write <tool_call> before the JSON") is not a call either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.components.chat.call_values import BadCall, as_call, read_json, skip_space
from potstill.components.chat.markups import MARKERS, find_marker, read_marked
from potstill.components.chat.thinking import without_thinking
from potstill.components.chat.xml_calls import Schemas, read_glm, read_xml
from potstill.core.errors import UsageError
from potstill.core.records import Call
from potstill.core.tools import Tool

__all__ = ["PARSERS", "UNFINISHED", "ParsedAnswer", "parse_answer"]

UNFINISHED = "the thinking is not closed, so there is no answer"
"""The error of an answer that is only thinking."""


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The calls before any error, the text around the calls, and the error (None where everything could be parsed)."""

    calls: tuple[Call, ...]
    content: str
    parse_error: str | None = None


@dataclass(slots=True)
class _Reading:
    """Calls and words that are filled while the text is parsed, so that an error keeps what came before it.

    schemas      the properties of each tool's arguments, by its name
    only_known   whether bare JSON is a call only if it names one of the tools
    """

    schemas: Schemas
    only_known: bool
    calls: list[Call]
    words: list[str]


def _hermes(text: str, reading: _Reading) -> None:
    """<tool_call>{"name": ..., "arguments": {...}}</tool_call>, any number, with text around them (Hermes, Qwen).

    In the tags, Qwen Coder writes <function=...>, and GLM the name with <arg_key> and <arg_value>.
    """
    at = 0
    while (start := find_marker(text, "<tool_call>", at)) >= 0:
        reading.words.append(text[at:start])
        inner = skip_space(text, start + len("<tool_call>"))
        if text.startswith("<function=", inner):
            call, end = read_xml(text, inner, reading.schemas)
        elif re.compile(r"[\w.-]").match(text, inner):
            call, end = read_glm(text, inner, reading.schemas)
        else:
            value, end = read_json(text, inner)
            call = as_call(value)
        if not text.startswith("</tool_call>", end):
            raise BadCall("<tool_call> is not closed after its call")
        reading.calls.append(call)
        at = end + len("</tool_call>")
    reading.words.append(text[at:])
    rest = "\n".join(reading.words)
    if "</tool_call>" in rest and "<tool_call>" not in rest:
        raise BadCall("</tool_call> without a <tool_call> before it")


def _llama3(text: str, reading: _Reading) -> None:
    """{"name": ..., "parameters": {...}}, joined by ";", bare or after <|python_tag|> (Llama 3)."""
    tag = find_marker(text, "<|python_tag|>", 0)
    if tag < 0 and not _opens_like_call(text, reading):
        reading.words.append(text)
        return
    if tag >= 0:
        reading.words.append(text[:tag])
    at, rest = 0, text if tag < 0 else text[tag + len("<|python_tag|>") :]
    while True:
        value, at = read_json(rest, at)
        if tag < 0 and not reading.calls and not _is_bare_call(value, reading):
            reading.words.append(text)  # an answer that happens to be JSON
            return
        reading.calls.append(as_call(value, ("parameters", "arguments")))
        if at == len(rest):
            return
        if rest[at] != ";":
            raise BadCall("text after a call")
        at += 1


def _opens_like_call(text: str, reading: _Reading) -> bool:
    """Whether the text begins like an object; where only known tools count, one of their names must be in it."""
    if re.match(r"\s*\{\s*[\"']", text) is None:
        return False
    return not reading.only_known or any(f'"{name}"' in text or f"'{name}'" in text for name in reading.schemas)


def _is_bare_call(value: Any, reading: _Reading) -> bool:
    if not isinstance(value, dict) or "name" not in value or not {"parameters", "arguments"} & value.keys():
        return False
    return not reading.only_known or value["name"] in list(reading.schemas)


def _mistral(text: str, reading: _Reading) -> None:
    """[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...], or [TOOL_CALLS]name[ARGS]{...} once per call (Mistral)."""
    marker = find_marker(text, "[TOOL_CALLS]", 0)
    if marker < 0:
        reading.words.append(text)
        return
    reading.words.append(text[:marker])
    at = skip_space(text, marker + len("[TOOL_CALLS]"))
    if not text.startswith("[", at) and _MISTRAL_NAME.match(text, at):
        while at < len(text):
            name = _MISTRAL_NAME.match(text, at)
            if name is None:
                raise BadCall("text after a call")
            arguments, at = read_json(text, name.end())
            reading.calls.append(as_call({"name": name["name"], "arguments": arguments}))
        return
    value, end = read_json(text, at)
    if not isinstance(value, list) or not value:
        raise BadCall("[TOOL_CALLS] must be followed by a list of calls")
    reading.calls.extend(as_call(item) for item in value)
    if end != len(text):
        raise BadCall("text after the list of calls")


_MISTRAL_NAME = re.compile(
    r"(?:\[TOOL_CALLS\])?\s*(?P<name>[\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\]\s*(?=\{)|(?=\{))"
)


def _marked(text: str, reading: _Reading) -> None:
    """All other markups of `markups.py`."""
    read_marked(text, reading.schemas, reading.calls, reading.words)


PARSERS: dict[str, Callable[[str, _Reading], None]] = {
    "hermes": _hermes,
    "qwen": _hermes,
    "llama3": _llama3,
    "mistral": _mistral,
}
_BY_MARKER: dict[str, Callable[[str, _Reading], None]] = {
    "<tool_call>": _hermes,
    "</tool_call>": _hermes,
    "[TOOL_CALLS]": _mistral,
    "<|python_tag|>": _llama3,
    **dict.fromkeys(MARKERS, _marked),
}


def _detect(text: str) -> Callable[[str, _Reading], None]:
    """The parser of the marker that comes first. Bare JSON and text without a marker count as Llama's format."""
    places = {find_marker(text, marker, 0): parser for marker, parser in _BY_MARKER.items() if marker in text}
    places.pop(-1, None)
    return places[min(places)] if places else _llama3


def parse_answer(
    text: str, format: str = "auto", tools: Sequence[Tool] = (), *, only_known: bool = False
) -> ParsedAnswer:
    """The calls and the text of an answer. A malformed call is reported in `parse_error`, and never raised.

    Args:
        text: the answer.
        format: a key of PARSERS, or "auto" for the format of the first marker in the text.
        tools: the tools that the model was given; their schemas say which values of XML-like calls are strings.
        only_known: whether bare JSON, which may be an answer in words, is a call only if it names one of the tools.

    Raises:
        UsageError: an unknown format.
    """
    if format != "auto" and format not in PARSERS:
        raise UsageError(f"Unknown tool-call format {format!r}. Choose one of: auto, {', '.join(PARSERS)}.")
    reading = _Reading(_schemas(tools), only_known, [], [])
    error: str | None = None
    try:
        body, unfinished = without_thinking(text)
        if unfinished:
            raise BadCall(UNFINISHED)
        body = body.strip()
        (_detect(body) if format == "auto" else PARSERS[format])(body, reading)
    except BadCall as bad:
        error = str(bad)
    content = "\n".join(part for part in (word.strip() for word in reading.words) if part)
    return ParsedAnswer(tuple(reading.calls), content, error)


def _schemas(tools: Sequence[Tool]) -> Schemas:
    """The schemas of each tool's arguments; empty for a tool without valid ones, since `check` reports broken tools."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            found[function["name"]] = properties if isinstance(properties, dict) else {}
    return found
