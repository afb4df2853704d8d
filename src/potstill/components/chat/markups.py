"""Markups of tool calls that few models share, in one table: the marker that opens a call, and how its body is read."""

from __future__ import annotations

import re
from collections.abc import Callable

from potstill.components.chat.call_values import BadCall, as_call, python_calls, read_json, skip_space
from potstill.components.chat.xml_calls import Schemas, read_xml
from potstill.core.records import Call

__all__ = ["MARKERS", "find_marker", "read_marked"]

_Body = Callable[[str, int, Schemas], tuple[list[Call], int]]
"""Reads the calls behind a marker that begins at a position; gives the calls and the position after them."""


def _json_calls(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    """A list of calls, or one call: [{"name": ..., "arguments": {...}}]."""
    value, at = read_json(text, _OPENING.match(text, at).end())  # type: ignore[union-attr]
    items = value if isinstance(value, list) else [value]
    calls = [
        as_call(v, ("arguments", "parameters"), "tool_name" if isinstance(v, dict) and "tool_name" in v else "name")
        for v in items
    ]
    if not calls:
        raise BadCall("the list of calls is empty")
    return calls, at


def _xml_call(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    call, at = read_xml(text, at, schemas)
    return [call], at


def _named_call(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    """The name, then the arguments as JSON; each model with its own marks between the two."""
    head = next((found for form in _NAMED if (found := form.match(text, at))), None)
    if head is None:
        raise BadCall("the marker of a call is not followed by the name of a tool")
    arguments, at = read_json(text, head.end())
    return [as_call({"name": head["name"], "arguments": arguments})], at


def _code(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    """Python between the marker and its end."""
    at = text.find("\n", at) if text.startswith("`", at) else text.find(">", at)
    found = _CODE_END.search(text, at + 1)
    if at < 0 or found is None:
        raise BadCall("the code of a call is not closed")
    return python_calls(text[at + 1 : found.start()]), skip_space(text, found.end())


_NAMED = tuple(
    re.compile(form)
    for form in (
        r">>>(?P<name>[\w.-]+)\n",  # Functionary
        r"<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>",  # Kimi
        r"<\uff5ctool\u2581call\u2581begin\uff5c>(?:function<\uff5ctool\u2581sep\uff5c>)?"  # DeepSeek
        r"(?P<name>[\w.-]+)(?:<\uff5ctool\u2581sep\uff5c>|\n)(?:```json\n)?",
        r"<\|channel\|>\w+ to=functions\.(?P<name>[\w.-]+)[^{}]{0,60}?<\|message\|>",  # gpt-oss
    )
)
MARKERS: dict[str, _Body] = {
    "<function=": _xml_call,
    "<invoke name=": _xml_call,
    "<|tool_call|>": _json_calls,  # Granite
    "<|START_ACTION|>": _json_calls,  # Command
    "<TOOLCALL>": _json_calls,  # Nemotron
    "<tool_calls>": _json_calls,  # Apriel
    "<function_call>": _json_calls,
    "functools[": _json_calls,  # Phi
    ">>>": _named_call,
    "<|tool_call_begin|>": _named_call,
    "<\uff5ctool\u2581call\u2581begin\uff5c>": _named_call,
    "<|channel|>commentary to=functions.": _named_call,
    "<|channel|>analysis to=functions.": _named_call,
    "```tool_code": _code,  # Gemma
    "<|tool_call_start|>": _code,  # LFM2
}
_OPENING = re.compile(r"functools|<[^<>]*>")
_CODE_END = re.compile(r"\n?```|<\|tool_call_end\|>")
_AROUND = re.compile(
    r"</?(?:[a-z]+:)?(?:tool_calls?|function_calls?|TOOLCALL)>|<\|END_ACTION\|>|<\|call\|>|<\|start\|>assistant$"
    r"|<\|tool_calls?_(?:section_)?(?:begin|end)\|>|(?:```)?<\uff5ctool\u2581calls?\u2581(?:begin|end)\uff5c>|<\|tool_call_end\|>"
)


def read_marked(text: str, schemas: Schemas, calls: list[Call], words: list[str]) -> None:
    """Read the calls behind all markers into `calls`, and the text around them into `words`.

    Raises:
        BadCall: a call is malformed.
    """
    at = 0
    while True:
        places = {find_marker(text, marker, at): body for marker, body in MARKERS.items() if marker in text}
        places.pop(-1, None)
        start = min(places, default=len(text))
        words.append(_AROUND.sub("", text[at:start]))
        if not places:
            return
        found, at = places[start](text, start, schemas)
        calls.extend(found)


_STRUCTURE = re.compile(r"\s*(?:$|[{\[<]|```|[\w.:-]+\s*[\[{(<]|[\w.-]+\n)")


def find_marker(text: str, marker: str, at: int) -> int:
    """The first place of a marker that opens or closes a call, and is not merely mentioned; -1 without any."""
    place = text.find(marker, at)
    while place >= 0 and _is_spoken_of(text, place, place + len(marker), marker):
        place = text.find(marker, place + 1)
    return place


def _is_spoken_of(text: str, start: int, end: int, marker: str) -> bool:
    """Whether a marker is a word of a sentence: in quotation marks, an empty pair of tags, or with words behind it."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if line and line[-1] in "`'\"\u2018\u201c" and text[end : end + 1] in ("`", "'", '"', "\u2019", "\u201d"):
        return True
    if marker == ">>>":
        return bool(line.strip()) or re.match(r"[\w.-]+\n", text[end:]) is None
    if marker.startswith("</"):  # it closes a call, unless its opening tag is only mentioned too
        opening = marker.replace("/", "")
        return opening in text and find_marker(text, opening, 0) < 0
    if marker[-1] not in ">]" or marker.startswith("<|channel|>"):
        return False  # "<function=", "functools[" and the like are never words
    closing = marker.replace("<", "</")
    if text.startswith(closing, end):
        return bool(line.strip())
    return _STRUCTURE.match(text, end) is None
