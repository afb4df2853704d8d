"""Answers in a form: JSON that fits a schema, and instructions on length, format and words."""

from __future__ import annotations

import json
import random
from typing import Any

from potstill.components.suites.builtin.made import made_item
from potstill.components.suites.builtin.tools import NAMES, ROOMS
from potstill.components.suites.items import Item

__all__ = ["instructions", "schemas"]

_TOPICS = ("tea", "rivers", "chess", "bread", "winter", "bicycles", "the moon", "libraries", "bees", "maps")


def schemas(draw: random.Random) -> Item:
    """Facts of a sentence as JSON; the schema names the right values too."""
    name, room, age = draw.choice(NAMES), draw.choice(ROOMS), draw.randint(18, 90)
    facts: dict[str, tuple[str, Any]] = {"name": ("string", name), "room": ("string", room), "age": ("integer", age)}
    keys = draw.sample(list(facts), draw.randint(2, 3))
    asked = {"type": "object", "properties": {k: {"type": facts[k][0]} for k in keys}, "required": keys}
    right = {
        "type": "object",
        "properties": {key: {"const": facts[key][1]} for key in keys},
        "required": keys,
        "additionalProperties": False,
    }
    prompt = (
        f"{name} is {age} years old and waits in the {room}. Answer with JSON that fits this schema, and nothing else: "
        f"{json.dumps(asked)}"
    )
    return made_item(prompt, {"kind": "schema", "json_schema": right}, f"schema with {len(keys)} keys")


def instructions(draw: random.Random) -> Item:
    """One or two instructions on a short text."""
    word, count = draw.choice(("however", "small", "green", "often")), draw.randint(2, 6)
    known: list[tuple[str, str, dict[str, Any]]] = [
        (f"Use at most {10 * count} words.", "length_constraints:number_words",
         {"num_words": 10 * count + 1, "relation": "less than"}),
        ("Use no comma.", "punctuation:no_comma", {}),
        (f"Use the word {word!r}.", "keywords:existence", {"keywords": [word]}),
        (f"Write exactly {count} bullet points that begin with *.", "detectable_format:number_bullet_lists",
         {"num_bullets": count}),
        ("Write in lower case only.", "change_case:english_lowercase", {}),
        ("Put the whole answer into double quotes.", "startend:quotation", {}),
        ("End with the words: That is all.", "startend:end_checker", {"end_phrase": "That is all."}),
    ]  # fmt: skip
    # these contradict each other, so one of them at most is chosen
    exclusive = {"change_case:english_lowercase", "startend:quotation", "startend:end_checker"}
    chosen = draw.sample(known, draw.randint(1, 2))
    if sum(name in exclusive for _, name, _ in chosen) > 1:
        chosen = chosen[:1]
    text = " ".join(sentence for sentence, _, _ in chosen)
    rules = [{"name": name, "values": values} for _, name, values in chosen]
    tag = "one instruction" if len(chosen) == 1 else "two instructions"
    return made_item(f"Write about {draw.choice(_TOPICS)}. {text}", {"kind": "constraints", "rules": rules}, tag)
