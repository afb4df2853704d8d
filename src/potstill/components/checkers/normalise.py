"""Differences between a value and a gold that do not count, where the gold of an argument says so."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from potstill.core.records import Normaliser

__all__ = ["NORMALISERS", "equal", "normalised"]

_NUMBER = re.compile(r"\s*[-+]?\d{1,18}(?:\.\d{1,18})?(?:[eE][-+]?\d{1,2})?\s*")
_KEPT_INSIDE = re.compile(r"(?<=\d)[.,:](?=\d)|(?<![\w.])-(?=\d)")


def _case(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _spaces(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _punctuation(value: Any) -> Any:
    """Without punctuation, except the sign, the point and the colon of a number: "-1.5" stays itself."""
    if not isinstance(value, str):
        return value
    kept = {found.start() for found in _KEPT_INSIDE.finditer(value)}
    signs = (c if i in kept or not unicodedata.category(c).startswith("P") else " " for i, c in enumerate(value))
    return _spaces("".join(signs))


def _articles(value: Any) -> Any:
    return re.sub(r"^(?:the|a|an)\s+", "", value, flags=re.IGNORECASE) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """A number for text that is one, and 12 significant digits of a fraction: "40" is 40, and 0.1 + 0.2 is 0.3."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _order(value: Any) -> Any:
    """A list in one order, whatever order it came in."""
    if not isinstance(value, list | tuple):
        return value
    return sorted(value, key=lambda item: json.dumps(_floats(item), sort_keys=True, ensure_ascii=False))


def _floats(value: Any) -> Any:
    """5 as 5.0, so that equal numbers have one place in the order."""
    if isinstance(value, list | tuple):
        return [_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and abs(value) < 2**53 else value


NORMALISERS: dict[Normaliser, Callable[[Any], Any]] = {
    "case": _case,
    "spaces": _spaces,
    "punctuation": _punctuation,
    "articles": _articles,
    "number": _number,
    "order": _order,
}
"""In the order in which they are applied; those of text and numbers apply to the items of a list too."""


def normalised(value: Any, names: Sequence[Normaliser]) -> Any:
    """A value without the differences that do not count."""
    for name, normalise in NORMALISERS.items():
        if name in names:
            inside = name != "order" and isinstance(value, list | tuple)
            value = [normalise(item) for item in value] if inside else normalise(value)
    return value


def equal(left: Any, right: Any) -> bool:
    """Deep equality of JSON values of the same type: true is not 1, "5" is not 5; 5 and 5.0 are equal.

    Text is compared in Unicode's composed form (NFC).
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        left, right = _composed_keys(left), _composed_keys(right)
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, str) and isinstance(right, str):
        return unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right)
    return type(left) is type(right) and bool(left == right)


def _composed_keys(value: dict[str, Any]) -> dict[str, Any]:
    return {unicodedata.normalize("NFC", key): item for key, item in value.items()}
