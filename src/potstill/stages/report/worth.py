"""What the teacher was worth: the ladder as a chart and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.core.artifacts.worth import Worth
from potstill.stages.report.charts import Dot, ladder_chart
from potstill.stages.report.text import capital, unbroken

__all__ = ["WorthSection", "worth_section"]


@dataclass(frozen=True)
class WorthSection:
    """The ladder.

    lead        what the lines are
    columns     titles of the table
    rows        its cells
    sentences   which rung to ship, what the intervals are over, and what would help
    """

    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: Markup
    sentences: Sequence[str]


def worth_section(worth: Worth | None) -> WorthSection | None:
    """The ladder's section; None where nothing could be measured."""
    if worth is None:
        return None
    cells = [[capital(line[0]), *map(unbroken, line[1:])] for line in worth.cells()]
    dots = [Dot(capital(rung.title), rung.value, rung.low, rung.high) for rung in worth.rungs]
    label = "The worth ladder. " + " ".join(f"{line[0]}: {line[1]}." for line in cells)
    return WorthSection(
        lead=worth.lead,
        columns=[*map(capital, worth.columns[:-1]), worth.columns[-1]],
        rows=cells,
        chart=ladder_chart(dots, worth.teacher, label, percent=worth.measure == "exact"),
        sentences=[unbroken(text) for text in (worth.sentence, worth.interval_sentence, *worth.advice)],
    )
