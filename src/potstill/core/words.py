"""Words of messages: known ones that are close to a mistyped one, and foreign text that is safe to print."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

__all__ = ["escaped", "nearest_hint", "printable"]

_NOT_SHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, invisible marks, halves of surrogate pairs, and line separators."""
_KEPT = "\n\u200c\u200d"  # line feeds, and the invisible joiners that emoji and some scripts need


def nearest_hint(word: object, known: Sequence[str], listed: str = "there are") -> str:
    """A clause that suggests the known word that is most like `word`, or else lists all of them after `listed`."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"{listed} {', '.join(known)}"


def printable(text: str, most: int = 300) -> str:
    """Foreign text for a message: one line of at most `most` characters, without control characters.

    A terminal would obey escape sequences in it, and a text of thousands of characters would hide the message.
    """
    cut = text[: 2 * most]  # foreign text can be very long
    plain = "".join(c if c.isprintable() or c == " " else " " if unicodedata.category(c) != "Cs" else "?" for c in cut)
    words = " ".join(plain.split())
    return words if len(words) <= most and len(text) <= 2 * most else f"{words[: most - 3]}..."


def escaped(text: str, most: int) -> str:
    """A whole text for a terminal: its lines stay, and control characters in it are written as `\\x1b`.

    Args:
        text: text that may quote a file, a model or an endpoint.
        most: limit of the length, in characters; longer text is cut at its end and says how long it was.
    """
    cut = "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in _NOT_SHOWN and c not in _KEPT else c
        for c in text[:most]
    )
    return cut if len(text) <= most else f"{cut}... ({len(text):,} characters)"
