"""Numbers and names as the page says them."""

from __future__ import annotations

import difflib
import re
from typing import Any

from markupsafe import Markup, escape

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
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COUNTS = ((1e9, "billion"), (1e6, "million"))
_LONGEST = 4000  # characters of an answer that are shown
_ALIKE = 0.35  # answers less alike than this share next to nothing: marks would cover them
_COMPARED = 1500  # words; comparing more takes too long


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f}{_PERCENT}"


def number(value: float, digits: int = 3) -> str:
    """A measurement to some digits; from 1,000 on, in whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def size(count_: float) -> str:
    """Bytes in decimal units."""
    scale, unit = next((s for s in _SIZES if count_ >= s[0]), (1, "bytes"))
    return f"{count_ / scale:.3g} {unit}"


def count(number: float) -> str:
    """A large number in words, a small one in digits."""
    scale, unit = next((c for c in _COUNTS if number >= c[0]), (1, ""))
    return f"{number / scale:.3g} {unit}" if unit else f"{number:,.0f}"


def quantity(value: float | None, unit: str) -> str:
    """A gate's number in its unit; a dash where there is none."""
    if value is None:
        return _DASH
    return percent(value) if unit in ("rate", "ratio") else f"{number(value, 4)} {unit}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends, with `%` for shares and otherwise without a unit; empty where there is no interval."""
    if low is None and high is None:
        return ""
    if unit in ("rate", "ratio"):
        return f"{quantity(low, unit).removesuffix(_PERCENT)} to {quantity(high, unit)}"
    ends = (_DASH if end is None else number(end) for end in (low, high))
    return " to ".join(ends)


def rate(found: dict[str, Any] | None) -> dict[str, str] | None:
    """A measured rate as the parts of a table cell."""
    if found is None:
        return None
    return {
        "share": percent(found["rate"]),
        "interval": f"{100 * found['low']:.1f} to {100 * found['high']:.1f}",
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
