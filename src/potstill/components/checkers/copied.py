"""Values: whether the arguments of calls stand in the prompt, for those arguments that are copied from there.

Which arguments these are is learnt from the answers themselves. An argument that a model composes or converts ("in
polite words", "as an ISO date") stands in few prompts, so nothing is said of its values. Numbers are compared with the
numbers of the prompt, in digits or in English words; where their argument is computed from these ("quarter to eight" is
"19:45"), a prompt must at least hold a number. Values that the schema lists are not looked at.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.verdicts import PASS, Candidate, Finding, fails, unknown
from potstill.core.records import Message, Row
from potstill.core.tools import Tool

__all__ = ["check_values"]

_COPIED = 0.9
"""Share of an argument's values that stand in their prompts, from which on the others are wrong. It bounds how many
right values of an argument can be rejected: one in ten."""
_FEWEST = 20
"""Number of values of an argument below which nothing is concluded from them."""

_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_LARGE = {"dozen": 12.0, "hundred": 100.0, "thousand": 1000.0}
_VAGUE = ["half", "quarter", "noon", "midday", "midnight"]
"""Words that are part of a number, or stand for a time."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of an argument.

    place     the tool and the path of the argument
    shown     the value as JSON
    stands    whether it stands in the prompt
    possible  whether it can come from the prompt: it stands there, or it is a number and the prompt has numbers
    """

    place: tuple[str, str]
    shown: str
    stands: bool
    possible: bool


def check_values(candidates: Sequence[Candidate]) -> list[Finding]:
    """Fail for answers with a value that is not in the prompt, where nearly all values of its argument are.

    Pass where every value stands in the prompt; unknown for all others, and for answers without values.
    """
    found = [_values(each.row, each.answer) if each.answer else [] for each in candidates]
    by_place: dict[tuple[str, str], list[_Value]] = defaultdict(list)
    for value in (value for values in found for value in values):
        by_place[value.place].append(value)
    copied = {place for place, values in by_place.items() if _nearly_all([v.stands for v in values])}
    possible = {place for place, values in by_place.items() if _nearly_all([v.possible for v in values])}
    return [_finding(values, copied, possible) for values in found]


def _nearly_all(outcomes: Sequence[bool]) -> bool:
    return len(outcomes) >= _FEWEST and sum(outcomes) >= _COPIED * len(outcomes)


def _finding(values: Sequence[_Value], copied: set[tuple[str, str]], possible: set[tuple[str, str]]) -> Finding:
    for value in values:
        if (value.place in copied and not value.stands) or (value.place in possible and not value.possible):
            tool, argument = value.place
            return fails(f"{argument} of {tool} is {value.shown}, which is not in the prompt")
    return PASS if values and all(value.stands for value in values) else unknown()


# ---- the values of an answer ----


def _values(row: Row, answer: ParsedAnswer) -> list[_Value]:
    if not answer.calls:
        return []
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in row.tools if _named(tool)}
    prompt = "\n".join(map(_text, row.messages))
    plain, numbers = _plain(prompt), _numbers(prompt)
    out = []
    for call in answer.calls:
        for path, value in _leaves(call.arguments, schemas.get(call.name, {}), ""):
            is_number = not isinstance(value, str) or not any(map(str.isalpha, value))
            stands = _stands(value, plain, numbers)
            shown = json.dumps(value, ensure_ascii=False)
            out.append(_Value((call.name, path), shown, stands, stands or (is_number and bool(numbers))))
    return out


def _named(tool: Tool) -> bool:
    function = tool.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _text(message: Message) -> str:
    """All that a message says, calls included."""
    return "\n".join([message.content or "", *(call.function.arguments for call in message.tool_calls)])


def _leaves(value: Any, schema: Any, path: str) -> Iterator[tuple[str, str | int | float]]:
    """Texts and numbers inside a value with the paths of their keys, without those that the schema lists."""
    schema = schema if isinstance(schema, Mapping) else {}
    if _is_listed(schema) or isinstance(value, bool) or value is None:
        return
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        for key, item in value.items():
            inner = properties.get(key) if isinstance(properties, Mapping) else None
            yield from _leaves(item, inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, schema.get("items"), f"{path}[]")
    elif isinstance(value, int | float) or _plain(value):
        yield path, value


def _is_listed(schema: Mapping[str, Any]) -> bool:
    """Whether the schema lists the values, or one of its alternatives does."""
    if "enum" in schema or "const" in schema:
        return True
    choices = [each for key in ("anyOf", "oneOf") for each in schema.get(key) or () if isinstance(each, Mapping)]
    return any(map(_is_listed, choices))


# ---- the prompt ----


def _stands(value: str | int | float, plain: str, numbers: frozenset[float]) -> bool:
    """Whether a value is in a prompt that is made `_plain`, or among its numbers."""
    if not isinstance(value, str):
        return abs(float(value)) in numbers
    text = _plain(value)
    # no letter or digit of the Latin script may follow; other scripts have no spaces between words
    return re.search(rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])", plain) is not None


def _plain(text: str) -> str:
    """Words without case and punctuation, with one space between them."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _numbers(text: str) -> frozenset[float]:
    """Numbers without their signs, in digits and in English words; words that are a part of one count as NaN."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # between thousands
    found = {float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", text)}
    tens = 0.0  # of the word before
    for word in re.findall(r"[a-z]+", text.casefold()):
        if word in _SMALL:
            small = float(_SMALL.index(word))
            found |= {small, tens + small} if 0 < small < 10 else {small}
        elif word in _LARGE or word in _VAGUE:
            found.add(_LARGE.get(word, float("nan")))
        tens = 20.0 + 10 * _TENS.index(word) if word in _TENS else 0.0
        found |= {tens} if tens else set()
    return frozenset(found)
