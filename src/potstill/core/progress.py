"""Progress on stderr: a bar on a terminal, or a line every 20 seconds in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from potstill.core.environment import is_first_process

__all__ = ["Ticker", "progress_bar"]

_LOG_SECONDS = 20.0


class Ticker:
    """Counts the work that is done: `advance(1, loss=0.3)`."""

    def __init__(self, label: str, total: int, start: int) -> None:
        self.label, self.total, self.done = label, total, start
        self._last = time.monotonic()

    def advance(self, count: int = 1, **values: float) -> None:
        """Count work that is done, and show values with it."""
        self.done += count
        self.show(" ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def show(self, note: str) -> None:
        now = time.monotonic()
        if now - self._last >= _LOG_SECONDS and is_first_process():
            self._last = now
            print(f"  {self.label}: {self.done}/{self.total} {note}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(label: str, total: int, start: int = 0) -> Iterator[Ticker]:
    """A ticker that draws a bar when stderr is a terminal."""
    if not sys.stderr.isatty() or not is_first_process():
        yield Ticker(label, total, start)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=start, note="")

        class Bar(Ticker):
            def show(self, note: str) -> None:
                bar.update(task, completed=self.done, note=note)

        yield Bar(label, total, start)
