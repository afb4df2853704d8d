"""Words with which an answer declines or asks back, where a row gives no pattern of its own.

An answer is read sentence by sentence. It asks back if a sentence asks for something that is needed; "anything else?"
does not count, and neither does an offer ("shall I check the weather instead?") of an answer that declines or says that
something was done. An answer declines if a sentence that is not a question declines, and no sentence says that
something was done. The words are in phrases.toml.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

__all__ = ["acts", "asks_back", "declines", "plain"]

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\uff07", "'"))
_SPLIT = re.compile(r"(?<=[.!?\u2026])[\"'\u201d)\]*]*\s+|(?<=[\u3002\uff01\uff1f\u061f])\s*|[\u037e;]\s+|\n+")
_QUESTION = re.compile(r"[?\uff1f\u061f\u055e\u1367\u2e2e][!?.\"'\u201d\u00bb)\]*\s]*$")
_GREEK_QUESTION = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff][^a-z]*;$")


def plain(text: str) -> str:
    """The text in Unicode's composed form (NFC), with one kind of apostrophe."""
    return unicodedata.normalize("NFC", text).translate(_APOSTROPHES)


@cache
def _forms(kind: str) -> re.Pattern[str]:
    """One list of phrases.toml as one pattern."""
    table = tomllib.loads((Path(__file__).parent / "phrases.toml").read_text(encoding="utf-8"))
    forms = table[kind]
    if kind == "declines":
        forms = [*forms, *table["other_languages"].values()]
    text = "|".join(forms)
    for name, part in table["parts"].items():
        text = text.replace(f"<<{name}>>", part)
    return re.compile(text, re.IGNORECASE)


def _sentences(text: str) -> list[str]:
    """Sentences, of which those that ask end with their question mark."""
    marked = re.sub(r"(?<=[\u0370-\u03ff\u1f00-\u1fff])[;\u037e](?=\s|$)", "?", plain(text))
    return [part for piece in _SPLIT.split(marked) if (part := piece.strip(" \t\"'*_()[]-\u201c\u201d"))]


def _is_question(sentence: str) -> bool:
    return _QUESTION.search(sentence) is not None or _GREEK_QUESTION.search(sentence) is not None


def asks_back(text: str, *, settled: bool = False) -> bool:
    """Whether the text asks for something that is needed. Where it declines or has acted, offers do not count."""
    for sentence in _sentences(text):
        if _forms("asks_nothing").search(sentence) or (settled and _forms("offers").search(sentence)):
            continue
        if _is_question(sentence) or _forms("requests").search(sentence):
            return True
    return False


def acts(text: str) -> bool:
    """Whether the text says that something was done."""
    return any(_forms("acts").search(sentence) for sentence in _sentences(text) if not _is_question(sentence))


def declines(text: str) -> bool:
    """Whether the text declines, and does not say that it did something."""
    said = [sentence for sentence in _sentences(text) if not _is_question(sentence)]
    return any(map(_forms("declines").search, said)) and not acts(text)
