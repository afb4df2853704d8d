"""Which values of the axes a row has, and how many rows each quota has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill.components.curriculum.spec import Curriculum
from potstill.core.artifacts.coverage import Coverage, CoverageCell
from potstill.core.records import Row

__all__ = ["coverage_of", "in_cell", "values_of"]


def values_of(row: Row, curriculum: Curriculum) -> dict[str, str]:
    """The value of each axis that is known of a row.

    What the row's provenance says comes first, then the row's behaviour, label or tool, then the axis' default.
    """
    stated = row.provenance.get("coverage")
    said: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    found: dict[str, str] = {}
    for axis, values in curriculum.axes.items():
        default = next((name for name, value in values.items() if value.default), None)
        value = said.get(axis) or _read(row, axis) or default
        if isinstance(value, str):
            found[axis] = value
    return found


def _read(row: Row, axis: str) -> str | None:
    """The value of an axis that a row's own gold says."""
    if axis == "behaviour":
        return row.behaviour
    if row.gold is None:
        return None
    if axis == "label":
        return row.gold.equals[0] if row.gold.equals else None
    if axis == "tool":
        return row.gold.calls[0].name if row.gold.calls else None
    return None


def in_cell(values: Mapping[str, str], of: Mapping[str, str]) -> bool:
    """Whether a row with these values counts for a quota."""
    return all(values.get(axis) == value for axis, value in of.items())


def coverage_of(rows: Iterable[Row], curriculum: Curriculum, written: Sequence[Row] = ()) -> Coverage:
    """The accepted rows of each quota.

    Args:
        rows: accepted rows.
        curriculum: the quotas.
        written: all prompts that were written for the curriculum.
    """
    accepted = [values_of(row, curriculum) for row in rows]
    tried = [values_of(row, curriculum) for row in written]
    cells = tuple(
        CoverageCell(
            of=cell.of,
            quota=cell.rows,
            accepted=sum(in_cell(values, cell.of) for values in accepted),
            written=sum(in_cell(values, cell.of) for values in tried),
        )
        for cell in curriculum.cells
    )
    return Coverage(curriculum=curriculum.name, rows=len(accepted), written=len(tried), cells=cells)
