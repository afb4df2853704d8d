"""A fact in a long text, and requests as hasty people write them."""

from __future__ import annotations

import random

from potstill.components.suites.builtin.made import made_item
from potstill.components.suites.builtin.tools import NAMES, ROOMS, TOOLS, light_call, timer_call
from potstill.components.suites.items import Item

__all__ = ["messy", "needle"]

_FILLER = (
    "The lamp in the {room} was replaced on a Tuesday.", "{name} asked for a chair near the window of the {room}.",
    "Nobody had seen {name} since lunch.", "The {room} was painted in a light grey.",
    "{name} found the key in the {room}.", "It rained, and {name} stayed in the {room}.",
)  # fmt: skip
_LENGTHS = {"short": 10, "middle": 40, "long": 120}
"""Sentences of a text, by its tag."""
_PLACES = ("head", "middle", "tail")


def needle(draw: random.Random) -> Item:
    """A code that stands at the head, in the middle or at the tail of a text of three lengths."""
    length, place = draw.choice(list(_LENGTHS)), draw.choice(_PLACES)
    sentences = [
        draw.choice(_FILLER).format(room=draw.choice(ROOMS), name=draw.choice(NAMES)) for _ in range(_LENGTHS[length])
    ]
    name, code = draw.choice(NAMES), str(draw.randint(10_000, 99_999))
    at = {"head": 1, "middle": len(sentences) // 2, "tail": len(sentences) - 1}[place]
    sentences.insert(at, f"The code of {name} is {code}.")
    prompt = f"{' '.join(sentences)}\n\nWhat is the code of {name}? Answer with the code only."
    return made_item(prompt, {"kind": "one_of", "texts": [code, f"{code}."]}, f"{place} of a {length} text")


def messy(draw: random.Random) -> Item:
    """A clear request with typos, in odd case, with odd spacing, or inside a pasted log or list."""
    room, state, minutes = draw.choice(ROOMS), draw.choice(("on", "off")), draw.randint(2, 60)
    text, call = draw.choice(
        (
            (f"turn {state} the light in the {room}", light_call(room, state)),
            (f"start a timer for {minutes} minutes", timer_call(minutes)),
        )
    )
    kind = draw.choice(("typos", "case", "spacing", "punctuation", "log line", "list"))
    changed = {
        "typos": lambda: _with_typos(draw, text, keep={room, state}),
        "case": lambda: text.upper() if draw.random() < 0.5 else text.title(),
        "spacing": lambda: "  ".join(text.split()) + "  ",
        "punctuation": lambda: f"...{text}!!!",
        "log line": lambda: f"2026-01-{draw.randint(10, 28)} 07:{draw.randint(10, 59)} INFO bridge: ok\n\n{text}",
        "list": lambda: f"- call mum later, I do that myself\n- you: {text}",
    }[kind]()
    return made_item(changed, {"kind": "calls", "calls": [call]}, kind, tools=TOOLS)


def _with_typos(draw: random.Random, text: str, keep: set[str]) -> str:
    """The text with two neighbouring letters exchanged in one of its longer words; values stay as they are."""
    words = text.split()
    places = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha() and word not in keep]
    i = draw.choice(places)
    at = draw.randrange(1, len(words[i]) - 1)
    letters = list(words[i])
    letters[at], letters[at + 1] = letters[at + 1], letters[at]
    words[i] = "".join(letters)
    return " ".join(words)
