"""Names and numbers as the page shows them."""

from __future__ import annotations

from potstill.core.artifacts.metrics import Rate
from potstill.core.format import format_interval, format_percent, format_value

__all__ = ["BEHAVIOURS", "MODELS", "RateCell", "capital", "interval", "percent", "shorten", "unbroken", "value"]

BEHAVIOURS = {
    "tool_call": "One tool call",
    "multi_call": "Several calls",
    "clarify": "Clarifying question",
    "refuse": "Refusal",
    "answer": "Text answer",
}
MODELS = {
    "teacher": "Teacher",
    "gguf": "Shipped file",
    "start": "Before training",
    "student": "Checkpoint",
    "control": "Plain fine-tuning",
}
_DASH = "\N{EN DASH}"
_MAX_CHARACTERS = 4000


def capital(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def unbroken(text: str) -> str:
    """Text whose percentages are not split between two lines."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def percent(share: float) -> str:
    """A fraction in percent, with one decimal."""
    return unbroken(format_percent(share))


def value(number: float | None, unit: str) -> str:
    """A number in a gate's unit; a dash for None."""
    return _DASH if number is None else unbroken(format_value(number, unit))


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends of an interval with their unit; empty without an interval."""
    return unbroken(format_interval(low, high, unit, digits=3))


def shorten(text: str, longest: int = _MAX_CHARACTERS) -> str:
    """The text, or its beginning and the number of characters left out."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]} ... ({more:,} more characters)"


class RateCell:
    """A rate as the parts of a table cell: `share`, `interval` and `counts`."""

    def __init__(self, rate: Rate) -> None:
        self.share = percent(rate.rate)
        self.interval = format_interval(rate.low, rate.high, "rate").removesuffix(" %")
        self.counts = f"{rate.k} of {rate.n}"
