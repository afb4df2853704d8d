"""How a generated item is put together."""

from __future__ import annotations

from typing import Any

from potstill.components.suites.items import Item

__all__ = ["made_item"]


def made_item(prompt: str, expected: dict[str, Any], tag: str, system: str = "", **more: Any) -> Item:
    """An item with one question of the user and one tag."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    value = {"messages": messages, "expected": expected, "tags": [tag], "source": "potstill", **more}
    return Item.parse(value, f"generated item ({tag})")
