"""What the rows share and a runtime must be given: one system message, and the tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from potstill.core.records import Row, read_rows
from potstill.core.tools import dropped_by_ollama

if TYPE_CHECKING:
    from potstill.stages.package.stage import PackageInputs

__all__ = ["Workload", "read_workload", "workload_of"]


@dataclass(frozen=True)
class Workload:
    """What all rows share.

    system    the system message with which every row begins; None where they have none or different ones
    dropped   keywords of the tools' schemas that Ollama does not pass to a chat template
    """

    system: str | None
    dropped: tuple[str, ...]


def read_workload(inputs: PackageInputs) -> Workload:
    """The workload of the rows that were trained and judged."""
    tools = inputs.data["tools"].path if "tools" in inputs.data else None
    return workload_of([row for name in ("prompts", "test") for row in read_rows(inputs.data[name].path, tools=tools)])


def workload_of(rows: Sequence[Row]) -> Workload:
    """The workload of rows."""
    systems = {row.messages[0].content if row.messages[0].role == "system" else None for row in rows}
    tools = {id(row.tools): row.tools for row in rows}  # rows that share their tools have the same object
    dropped = dict.fromkeys(key for given in tools.values() for key in dropped_by_ollama(given))
    return Workload(system=systems.pop() if len(systems) == 1 else None, dropped=tuple(dropped))
