"""Numbers and names as the page says them."""

from __future__ import annotations

import difflib
import re
from typing import Any

from markupsafe import Markup, escape

from potstill.core.format import format_interval, format_large, format_number, format_percent, format_size, format_value

__all__ = [
    "BEHAVIOURS",
    "MODELS",
    "count",
    "interval",
    "mark_differences",
    "number",
    "percent",
    "quantity",
    "rate",
    "shorten",
    "size",
    "unbroken",
]

BEHAVIOURS = {
    "tool_call": "One tool call",
    "multi_call": "Several calls",
    "clarify": "Asks back",
    "refuse": "Refusal",
    "answer": "Answer in words",
}
MODELS = {"teacher": "Teacher", "gguf": "Shipped file", "student": "Checkpoint", "control": "Plain fine-tuning"}
_DASH = "\N{EN DASH}"
_PERCENT = "\N{NO-BREAK SPACE}%"
_LONGEST = 4000  # characters of an answer that are shown
_ALIKE = 0.35  # answers less alike than this share next to nothing: marks would cover them
_COMPARED = 1500  # words; comparing more takes too long


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return unbroken(format_percent(share))


def number(value: float, digits: int = 3) -> str:
    """A measurement to some digits; from 1,000 on, in whole numbers."""
    return format_number(value, digits)


def size(count_: float) -> str:
    """Bytes in decimal units."""
    return format_size(count_)


def count(number: float) -> str:
    """A large number in words, a small one in digits."""
    return format_large(number)


def quantity(value: float | None, unit: str) -> str:
    """A gate's number in its unit; a dash where there is none."""
    return _DASH if value is None else unbroken(format_value(value, unit))


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends and the unit; empty where there is no interval."""
    return unbroken(format_interval(low, high, unit, digits=3))


def rate(found: dict[str, Any] | None) -> dict[str, str] | None:
    """A measured rate as the parts of a table cell."""
    if found is None:
        return None
    return {
        "share": percent(found["rate"]),
        "interval": format_interval(found["low"], found["high"], "rate").removesuffix(" %"),
        "counts": f"{found['k']} of {found['n']}",
    }


def shorten(text: str, longest: int = _LONGEST) -> str:
    """The text, or its beginning and how much there is more."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]} ... ({more:,} more characters)"


def unbroken(text: str) -> str:
    """Text whose percentages stay on one line."""
    return text.replace(" %", _PERCENT)


def mark_differences(first: str, second: str) -> tuple[Markup, Markup]:
    """Both texts, escaped, the words that only one of them has marked."""
    a, b = (re.findall(r"\w+|\s+|.", shorten(text), re.DOTALL) for text in (first, second))
    if max(len(a), len(b)) > _COMPARED:
        return escape("".join(a)), escape("".join(b))
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return escape("".join(a)), escape("".join(b))
    marked: tuple[list[Markup], list[Markup]] = ([], [])
    for kind, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        for out, words in zip(marked, (a[a_start:a_end], b[b_start:b_end]), strict=True):
            text = escape("".join(words))
            out.append(text if kind == "equal" or not text.strip() else Markup("<mark>{}</mark>").format(text))
    return Markup("").join(marked[0]), Markup("").join(marked[1])
