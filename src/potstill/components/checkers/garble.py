"""Text that is unfit for any user: broken characters, and endless repetition."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["is_garbled"]

_REPEATED_CHARACTERS = re.compile(r"([^\W\d_])\1{9,}|((?=\S*[^\W\d_])\S{2,20}?)\2{5,}")
_WORD = re.compile(r"\w+")


def is_garbled(text: str) -> bool:
    """Whether a text has characters that are broken, or repeats words or letters without end."""
    return _has_broken_characters(text) or _REPEATED_CHARACTERS.search(text) is not None or _repeats_words(text)


def _has_broken_characters(text: str) -> bool:
    """Replacement characters, control characters, code points that mean nothing, or scripts mixed in one word."""
    if "\ufffd" in text or any(unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") and c not in "\n\r\t" for c in text):
        return True
    return any(len({script for c in word if (script := _script(c))}) > 1 for word in _WORD.findall(text))


def _script(character: str) -> str | None:
    """The script of a letter, of those that are never mixed in one word."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0]
    return name if name in ("LATIN", "CYRILLIC", "ARABIC", "HEBREW", "DEVANAGARI", "THAI", "HANGUL") else None


def _repeats_words(text: str) -> bool:
    """Whether one to twelve words follow each other again and again: three times, a single word four or five times."""
    words = [word.casefold() for word in _WORD.findall(text) if not word.isdigit()]
    for period in range(1, min(12, len(words) // 3) + 1):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            times = 4 if period == 1 and len(words[i]) > 3 else max(3, 6 - period)
            if run >= period * (times - 1):
                return True
    return False
