"""Tables, code and gates in the Markdown of model cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from potstill.core.artifacts.metrics import Rate
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.format import format_interval, format_level, format_percent, format_value

__all__ = ["code", "duties", "escaped", "gates_section", "rate", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return "".join("\\" + c if c in "|\\`*[]<>" else c for c in " ".join(text.split()))


def code(text: str) -> str:
    """Code within a line."""
    return f"`{text.replace('`', '')}`"


def duties(obligations: Sequence[str]) -> str:
    """A section on the duties of anyone who passes the package on; empty without obligations."""
    if not obligations:
        return ""
    listed = "\n".join(f"- {escaped(duty)}" for duty in obligations)
    return f"\n\n## If you pass it on\n\nIts licences, listed in `LICENSE`, require you to:\n\n{listed}"


def rate(found: Rate | None) -> str:
    """A rate with its interval and counts."""
    if found is None:
        return "-"
    interval = format_interval(found.low, found.high, "rate").removesuffix(" %")
    return f"{format_percent(found.rate)} ({interval}), {found.k} of {found.n}"


def gates_section(verdict: Verdict) -> str:
    """The section on gates: all of them in a table, and details of those that did not pass; empty without gates."""
    if not verdict.gates:
        return ""
    header = ("gate", "verdict", "value", f"{format_level(verdict.confidence)} interval", "threshold")
    details = [f"- {g.name}: {escaped(g.detail)}" for g in verdict.gates if g.verdict != "PASS"]
    parts = ["## Gates", table(header, map(_row, verdict.gates)), "\n".join(details)]
    return "\n\n".join(part for part in parts if part)


def _row(gate: GateResult) -> tuple[str, ...]:
    interval = format_interval(gate.low, gate.high, gate.unit) or "-"
    value, threshold = format_value(gate.value, gate.unit), format_value(gate.threshold, gate.unit)
    return gate.name, gate.verdict, value, interval, threshold
