"""Prompts as people send them: operators that change a text by code, each with a seed and without a teacher."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from potstill.components.curriculum.spec import CodeOperator
from potstill.core.records import Message, Row

__all__ = ["MESSY", "Messy"]

_NEAR = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
"""Keys next to each other on a keyboard."""
_SHARE_OF_WORDS = 0.12
_FOREIGN = {
    "please": ("bitte", "por favor", "s'il vous plaît"), "and": ("und", "y", "et"), "the": ("die", "la", "le"),
    "thanks": ("danke", "gracias", "merci"), "today": ("heute", "hoy", "aujourd'hui"), "my": ("mein", "mi", "mon"),
    "tomorrow": ("morgen", "mañana", "demain"), "what": ("was", "qué", "quoi"), "with": ("mit", "con", "avec"),
    "is": ("ist", "es", "est"), "how": ("wie", "cómo", "comment"), "i": ("ich", "yo", "je"),
}  # fmt: skip
_GREETINGS = (("Hallo,", "danke!"), ("Hola,", "¡gracias!"), ("Bonjour,", "merci !"))
_LOG = (
    "2026-03-{:02d} 08:{:02d}:17 INFO  worker-{} started", "[{:02d}:{:02d}] WARN retry {} of 5: connection reset",
    "2026-03-{:02d}T10:{:02d}:02Z ERROR request {} timed out", "{:02d}.03. 12:{:02d} DEBUG cache miss for key {}",
)  # fmt: skip


def _typos(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """Letters swapped, left out, doubled or replaced by their neighbours; words of the right answer stay."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha() and word not in protected]
    if not places:
        return None
    for place in draw.sample(places, max(1, round(_SHARE_OF_WORDS * len(words)))) if len(places) > 1 else places:
        words[place] = _mistyped(words[place], draw)
    return " ".join(words)


def _mistyped(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word) - 1)
    before, letter, rest = word[:at], word[at], word[at + 1 :]
    near = draw.choice(_NEAR.get(letter.lower(), letter))
    return draw.choice(
        (before + rest[:1] + letter + rest[1:], before + rest, before + 2 * letter + rest, before + near + rest)
    )


def _truncation(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """The text up to a point between its middle and four fifths of it."""
    return text[: draw.randint(len(text) // 2, 4 * len(text) // 5)].rstrip() if len(text) >= 12 else None


def _mixed_language(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """Small words in another language, and a greeting in it."""
    language = draw.randrange(len(_GREETINGS))
    said = [
        word if word in protected else _FOREIGN.get(word.lower(), (word,) * 3)[language] for word in text.split(" ")
    ]
    hello, thanks = _GREETINGS[language]
    return " ".join((hello, *said, thanks))


def _bullets(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """The parts of the text as a list, or as a table of one column."""
    parts = [part.strip() for part in re.split(r"(?<=[.!?;])\s+|,\s+|\s+and then\s+|\n+", text) if part.strip()]
    if draw.random() < 0.5:
        return "\n".join(f"{draw.choice('-*')} {part}" for part in parts)
    return "\n".join(("| request |", "|---|", *(f"| {part.replace('|', '/')} |" for part in parts)))


def _pasted_log(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """Lines of a log before or after the text."""
    lines = [
        draw.choice(_LOG).format(draw.randint(1, 28), draw.randint(0, 59), draw.randint(1, 9))
        for _ in range(draw.randint(2, 5))
    ]
    return "\n".join((*lines, "", text) if draw.random() < 0.5 else (text, "", *lines))


def _missing_information(text: str, protected: frozenset[str], draw: random.Random) -> str | None:
    """The text without one of the values that the right answer needs; None where no value stands in it."""
    found = [value for value in sorted(protected) if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.I)]
    if not found:
        return None
    value = draw.choice(found)
    without = re.sub(rf"\s*(?<!\w){re.escape(value)}(?!\w)(\s*%)?", "", text, flags=re.I)
    return " ".join(without.split()) or None


@dataclass(frozen=True)
class Messy:
    """An operator that changes the last user message of a row.

    version       raised when it changes a text otherwise than before
    change        text, words of the right answer, random numbers -> text; None where it cannot be applied
    keeps_gold    whether the right answer stays the same
    """

    version: int
    change: Callable[[str, frozenset[str], random.Random], str | None]
    keeps_gold: bool = True

    def apply(self, row: Row, seed: str) -> Row | None:
        """The changed row, the same for the same seed; None where the operator does not apply."""
        places = [place for place, message in enumerate(row.messages) if message.role == "user"]
        if not places:
            return None
        said = row.messages[places[-1]]
        text = self.change(said.content or "", _answer_words(row), random.Random(seed))
        if not text or text == said.content:
            return None
        messages = [*row.messages]
        messages[places[-1]] = Message(role="user", content=text, name=said.name)
        changes: dict[str, object] = {"messages": tuple(messages)}
        if not self.keeps_gold:
            changes |= {"gold": None, "behaviour": "clarify" if self.change is _missing_information else "answer"}
        return row.model_copy(update=changes)


def _answer_words(row: Row) -> frozenset[str]:
    """The words that the right answer takes from the prompt: values of its calls."""
    values = [
        value for call in (row.gold.calls if row.gold else ()) for each in call.arguments.values() for value in each
    ]
    return frozenset(str(value) for value in values if isinstance(value, str | int | float) and str(value))


MESSY: dict[CodeOperator, Messy] = {
    "typos": Messy(1, _typos),
    "truncation": Messy(1, _truncation, keeps_gold=False),
    "mixed_language": Messy(1, _mixed_language),
    "bullets": Messy(1, _bullets),
    "pasted_log": Messy(1, _pasted_log),
    "missing_information": Messy(1, _missing_information, keeps_gold=False),
}
