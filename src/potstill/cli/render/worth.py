"""Prints the worth ladder: the same student, trained with more and more of the teacher."""

from __future__ import annotations

from rich.table import Table

from potstill.core.artifacts.worth import Worth

__all__ = ["worth_table"]


def worth_table(worth: Worth) -> Table:
    """One line for each rung: its value, and its gain over the rung before."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(worth.columns):
        table.add_column(column, justify="right" if number else "left")
    for cells in worth.cells():
        table.add_row(*cells)
    return table
