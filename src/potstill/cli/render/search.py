"""Students that a device can run, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.apps.plan.search import Measured, SearchResult, StudentRow
from potstill.cli.render.tables import aligned
from potstill.core.format import format_count, format_duration, format_size, format_speed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["render_search"]


def render_search(found: SearchResult) -> RenderableType:
    """A short table of students: one line with the id, one with the predicted numbers."""
    from rich.console import Group
    from rich.text import Text

    rows = [found.students[number - 1] for number in found.shown]
    with_training = rows[0].training is not None
    head = ("row", "kept", "file", "memory", "tokens/s", "1st token", *(["training", "disk"] * with_training))
    table, *lines = aligned([head, *map(_cells, rows)], left=())
    usable = f"{format_size(found.usable_bytes)} for the model, {format_count(found.context, 'token')} of context"
    parts = [Text(f"{found.device}: {usable}", style="bold"), *map(Text, _summary(found)), Text(), Text(table)]
    band = None
    for row, line in zip(rows, lines, strict=True):
        if row.quality_band != band:
            band = row.quality_band
            parts.append(Text(f"expect {band}:", style="italic"))
        number = f"{row.row:>{len('row')}}"
        parts += [Text(f"{number}  ").append(row.id, style="bold"), Text(" " * len(number) + line[len(number) :])]
    return Group(*parts, Text(), *_measured(found.measured), *map(Text, _notes(found, with_training)))


def _measured(students: Sequence[Measured]) -> list[Text]:
    """Students after a short training, that with the lowest loss first; empty without any."""
    from rich.text import Text

    if not students:
        return []
    head = ("kept", "loss", "steps", "time", "student")
    cells = [
        (
            f"{one.kept:.0%}", f"{one.loss:.4g}", f"{one.steps:,}", format_duration(one.seconds, short=True), one.id,
        ) for one in students
    ]  # fmt: skip
    title = "measured: loss on validation rows after a short training, in nats per token"
    return [Text(title, style="italic"), *map(Text, aligned([head, *cells], left=(4,))), Text()]


def _cells(row: StudentRow) -> list[str]:
    sizes = [format_size(row.file_bytes), format_size(row.needed_bytes)]
    rates, first = format_speed(*row.decode_tokens_per_s, "-"), row.ttft_seconds[1]
    cells = ["", f"{row.kept:.0%}", *sizes, rates, format_duration(first, short=True)]
    if row.training:
        low, high = (3600 * hours for hours in row.training.hours)
        span = format_duration(low, high, short=True) if high >= 60 else "< 1 min"
        cells += [span, format_size(row.training.disk_bytes)]
    return cells


def _summary(found: SearchResult) -> list[str]:
    """How many students there are, how many are shown, and whether one is needed at all."""
    rows, shown = len(found.students), len(found.shown)
    best = f"{rows:,} of them {'is' if rows == 1 else 'are'} faster than every better one"
    lines = [f"{format_count(found.feasible, 'student')} would do, and {best}."]
    if shown < rows:
        lines.append(f"{shown} of these {rows:,} are shown; --json lists them all.")
    if found.teacher_itself:
        lines.append(f"The teacher itself would do too, in {', '.join(found.teacher_itself)}.")
    return lines


def _notes(found: SearchResult, with_training: bool) -> list[str]:
    notes = [
        "kept: parameters relative to the teacher's, both without embeddings.",
        "expect: a rule of thumb based on these parameters, not a measurement; a cut that",
        "  keeps less than half of them counts for less than a model trained at that size.",
        f"1st token: at the slow end, after a prompt of {format_count(found.limits.prompt, 'token')}.",
    ]
    if found.vocabulary is not None:
        notes.append(f"The vocabulary is trimmed to about {format_count(found.vocabulary, 'token')}.")
    if with_training:
        notes += [
            f"training: on {found.train_on}, over the range of its likely rates.",
            "--write ID puts a student into the recipe, with its quantization and licence.",
        ]
    return [*notes, *found.notes]
