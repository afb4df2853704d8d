"""Words and tables of model cards, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from potstill.core.format import format_interval, format_percent, format_size, format_value

__all__ = ["bounds", "code", "gates", "percent", "plain", "rate", "size", "table", "value"]


def gates(verdict: dict[str, Any]) -> str:
    """A card's section on gates: all in a table, and what those that did not pass say; empty without gates."""
    if not verdict["gates"]:
        return ""
    rows = [
        (g["name"], g["verdict"], value(g["value"], g["unit"]), bounds(g), value(g["threshold"], g["unit"]))
        for g in verdict["gates"]
    ]
    told = table(("gate", "verdict", "value", "interval", "threshold"), rows)
    open_gates = [f"- {g['name']}: {plain(g['detail'])}" for g in verdict["gates"] if g["verdict"] != "PASS"]
    return "\n\n".join(["## Gates", told, *(["\n".join(open_gates)] if open_gates else [])])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown leaves as it is: no markup, one line, no table rule."""
    return "".join("\\" + c if c in "|\\`*[]<>" else c for c in " ".join(text.split()))


def code(text: str) -> str:
    """Code in Markdown."""
    return f"`{text.replace('`', '')}`"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return format_size(count)


def percent(share: float) -> str:
    """A share in percent."""
    return format_percent(share)


def rate(found: dict[str, Any] | None) -> str:
    """A rate with its interval and counts."""
    if found is None:
        return "-"
    interval = format_interval(found["low"], found["high"], "rate").removesuffix(" %")
    return f"{percent(found['rate'])} ({interval}), {found['k']} of {found['n']}"


def value(number: float | None, unit: str) -> str:
    """A number with its unit."""
    return format_value(number, unit)


def bounds(gate: dict[str, Any]) -> str:
    """A gate's interval."""
    return format_interval(gate["low"], gate["high"], gate["unit"]) or "-"
