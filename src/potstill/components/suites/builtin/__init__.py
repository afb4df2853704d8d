"""Built-in suites: items that seeded code writes, so that no data set is needed. One table has all kinds."""

from __future__ import annotations

import random
from collections.abc import Callable

from potstill.components.suites.builtin.arithmetic import arithmetic, units
from potstill.components.suites.builtin.context import messy, needle
from potstill.components.suites.builtin.forms import instructions, schemas
from potstill.components.suites.builtin.tools import refusals, tool_calls
from potstill.components.suites.items import Item
from potstill.core.errors import UsageError

__all__ = ["BUILTIN", "generate_items"]

Generator = Callable[[random.Random], Item]

BUILTIN: dict[str, Generator] = {
    "tools": tool_calls,
    "schema": schemas,
    "arithmetic": arithmetic,
    "units": units,
    "instructions": instructions,
    "refusal": refusals,
    "needle": needle,
    "messy": messy,
}
"""Generators of one item each, by the name of the kind."""
_MOST_REPEATS = 200  # draws in a row without a new item, after which a kind has no more of them


def generate_items(kind: str, count: int, seed: int) -> list[Item]:
    """Different items of a kind; the same seed gives the same items, and a larger count begins with those of a smaller.

    Raises:
        UsageError: the kind does not have so many different items.
    """
    draw = random.Random(f"{kind}@1 {seed}")
    found: dict[str, Item] = {}
    repeats = 0
    while len(found) < count and repeats < _MOST_REPEATS:
        item = BUILTIN[kind](draw)
        repeats = repeats + 1 if item.item_id in found else 0
        found.setdefault(item.item_id, item)
    if len(found) == count:
        return list(found.values())
    raise UsageError(f"There are only {len(found):,} different items of the kind {kind!r} here. Ask for fewer.")
