"""Progress with the time left, on stderr: a bar on a terminal; a line every 20 seconds in a pipe or a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from potstill.core.environment import is_first_process
from potstill.core.format import format_duration
from potstill.core.words import printable

__all__ = ["Ticker", "progress_bar", "say"]

_FIRST_LINE_SECONDS = 5.0
_LINE_SECONDS = 20.0
_LONGEST_SENTENCE = 1000  # characters


def say(text: str) -> None:
    """Print a sentence about the work of a stage, as a line of its own on stderr."""
    if is_first_process():
        print(f"  {printable(text, _LONGEST_SENTENCE)}", file=sys.stderr, flush=True)


class Ticker:
    """Counts the work that is done: `advance(1, loss=0.3)`."""

    def __init__(self, label: str, total: int, start: int) -> None:
        self.label, self.total, self.start, self.done = label, total, start, start
        self.began = time.monotonic()
        self._next = self.began + _FIRST_LINE_SECONDS

    def advance(self, count: int = 1, **values: float) -> None:
        """Count work that is done, and show values with it."""
        self.done += count
        self.show(" ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def time_left(self) -> str:
        """How long the rest takes at the speed so far: `3 min left`; empty before any work is done, and at the end."""
        worked, rest = self.done - self.start, self.total - self.done
        seconds = time.monotonic() - self.began
        return f"{format_duration(max(1.0, seconds / worked * rest), short=True)} left" if worked > 0 < rest else ""

    def show(self, note: str) -> None:
        """Print a line if the last one was long ago."""
        now = time.monotonic()
        if now >= self._next and is_first_process():
            self._next = now + _LINE_SECONDS
            parts = (f"{self.label}: {self.done:,} of {self.total:,}", self.time_left(), note)
            print("  " + ", ".join(part for part in parts if part), file=sys.stderr, flush=True)


@contextmanager
def progress_bar(label: str, total: int, start: int = 0) -> Iterator[Ticker]:
    """A ticker that draws a bar when stderr is a terminal."""
    if not sys.stderr.isatty() or not is_first_process():
        yield Ticker(label, total, start)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=start, note="")

        class Bar(Ticker):
            def show(self, note: str) -> None:
                bar.update(task, completed=self.done, note=note)

        yield Bar(label, total, start)
