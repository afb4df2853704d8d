"""The words in which two answers differ, marked in HTML."""

from __future__ import annotations

import difflib
import re

from markupsafe import Markup, escape

from potstill.stages.report.text import shorten

__all__ = ["mark_differences"]

_MIN_SIMILARITY = 0.35  # less similar answers have almost no words in common, and marks would cover everything
_MAX_WORDS = 1500  # a comparison of more words takes too long


def mark_differences(first: str, second: str) -> tuple[Markup, Markup]:
    """Both texts, escaped, with the words marked that only one of them has."""
    a, b = (re.findall(r"\w+|\s+|.", shorten(text), re.DOTALL) for text in (first, second))
    if max(len(a), len(b)) > _MAX_WORDS:
        return escape("".join(a)), escape("".join(b))
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < _MIN_SIMILARITY:
        return escape("".join(a)), escape("".join(b))
    marked: tuple[list[Markup], list[Markup]] = ([], [])
    for kind, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        for out, words in zip(marked, (a[a_start:a_end], b[b_start:b_end]), strict=True):
            text = escape("".join(words))
            out.append(text if kind == "equal" or not text.strip() else Markup("<mark>{}</mark>").format(text))
    return Markup("").join(marked[0]), Markup("").join(marked[1])
