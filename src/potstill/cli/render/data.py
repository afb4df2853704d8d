"""What `potstill data` prints: the grid of a curriculum, and rows with the reasons why they were rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from potstill.cli.render.page import say
from potstill.cli.render.tables import aligned
from potstill.core.words import escaped

if TYPE_CHECKING:
    from potstill.core.artifacts.coverage import Coverage
    from potstill.core.records import Message, Row

__all__ = ["row_pages", "say_coverage"]

_LONGEST = 4000  # characters of a message


def say_coverage(coverage: Coverage, *, accepted: bool) -> None:
    """Print a line for each quota, and what is missing."""
    table = [["quota of", "rows", "accepted" if accepted else "prompts", "written", "missing"]]
    for cell in coverage.cells:
        missing = str(cell.missing) if cell.missing else "-"
        table.append([cell.name, f"{cell.quota:,}", f"{cell.accepted:,}", f"{cell.written:,}", missing])
    for line in aligned(table):
        say(line.rstrip())
    say("")
    say(f"{coverage.sentence}.")
    if not accepted:
        say("Nothing is generated yet: these are the prompts that the recipe starts from.")


def row_pages(rows: Sequence[Row]) -> Iterator[str]:
    """The text of each row: why it was rejected, what was asked, and what was answered."""
    for number, row in enumerate(rows, 1):
        reason = row.provenance.get("rejected")
        head = f"--- {number} of {len(rows)}" + (f": {reason}" if reason else "")
        evidence = [
            f"{each['checker']}: {each['verdict']}" + (f" ({each['evidence']})" if each.get("evidence") else "")
            for each in row.provenance.get("verify", ())
        ]
        detail = row.provenance.get("detail")
        said = [_said(message) for message in (*row.messages, *([row.completion] if row.completion else []))]
        lines = [head, *evidence, *([str(detail)] if detail else []), *said]
        yield "\n".join(escaped(line, _LONGEST) for line in lines) + "\n\n"


def _said(message: Message) -> str:
    calls = " ".join(f"{call.function.name}({call.function.arguments})" for call in message.tool_calls)
    return f"{message.role}: {' '.join(filter(None, (message.content, calls)))}"
