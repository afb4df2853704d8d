"""Numbers: the one in which an answer ends, compared exactly.

The sign and the point belong to the number: "-1.5" is not "15".
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["final_number"]

_MARKED = re.compile(r"####\s*([^\n]*)")
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_LATEX_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d{1,18})\}\{(\d{1,18})\}")
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>-\s?(?=[$\u20ac\u00a3]?\s?[\d.]))?[$\u20ac\u00a3]?\s?(?P<minus>-)?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,18})?(?P<part>\.\d{1,18})?(?P<power>[eE][-+]?\d{1,2})?"
    r"(?:\s?/\s?(?P<under>\d{1,18}))?(?![.,]?\d)"
)
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"))


def final_number(text: str) -> Fraction | None:
    """The number after the last `####`, else in the last `\\boxed{}`, else the last one of the text; None without any.

    Thousands may be separated by commas, and a fraction may be written as 3/4 or \\frac{3}{4}. A sign of a currency
    before the number, and words or units after it, do not count.
    """
    plain = text.translate(_MINUS)
    for marker in (_MARKED, _BOXED):
        if found := marker.findall(plain):
            return _last(found[-1])
    return _last(plain)


def _last(text: str) -> Fraction | None:
    text = _LATEX_FRACTION.sub(r"\1\2/\3", text).replace("{,}", ",")
    found = [value for match in _NUMBER.finditer(text) if (value := _value(match)) is not None]
    return found[-1] if found else None


def _value(match: re.Match[str]) -> Fraction | None:
    whole, part = match["whole"], match["part"]
    if not whole and not part:
        return None
    value = Fraction(f"{(whole or '0').replace(',', '')}{part or ''}{match['power'] or ''}")
    if match["under"]:
        if not int(match["under"]):
            return None
        value /= int(match["under"])
    return -value if bool(match["sign"]) != bool(match["minus"]) else value
