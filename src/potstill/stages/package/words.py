"""Words and tables of model cards, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["bounds", "code", "gates", "percent", "plain", "rate", "size", "table", "value"]

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


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
    scale, unit = next((u for u in _UNITS if count >= u[0]), (1, "bytes"))
    return f"{count / scale:.3g} {unit}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def rate(found: dict[str, Any] | None) -> str:
    """A rate with its interval and counts."""
    if found is None:
        return "-"
    interval = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
    return f"{percent(found['rate'])} ({interval}), {found['k']} of {found['n']}"


def value(number: float | None, unit: str) -> str:
    """A number with its unit."""
    if number is None:
        return "-"
    return percent(number) if unit in ("rate", "ratio") else f"{number:.4g} {unit}".rstrip()


def bounds(gate: dict[str, Any]) -> str:
    """A gate's interval."""
    low, high, unit = gate["low"], gate["high"], gate["unit"]
    if low is None and high is None:
        return "-"
    if unit in ("rate", "ratio"):
        return f"{value(low, unit)} to {value(high, unit)}"
    return f"{value(low, '')} to {value(high, unit)}"
