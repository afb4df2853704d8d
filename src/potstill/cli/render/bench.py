"""What `potstill bench` prints: speed and memory with their intervals, and the machine."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from potstill.core.artifacts.speed import MeasuredSpeed, SpeedTiming
from potstill.core.format import format_interval, format_level, format_number

__all__ = ["render_bench"]


def render_bench(found: MeasuredSpeed) -> Group:
    """A table, and how it was measured."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    interval = f"{format_level(found.confidence)} interval"
    for column in ("measure", "median", interval, "slowest 5 %", interval):
        table.add_column(column, justify="left" if column == "measure" else "right", no_wrap=True)
    table.add_row("time to first token, ms", *_cells(found.ttft_ms))
    table.add_row("decode speed, tokens/s", *_cells(found.decode_tokens_per_s))
    table.add_row("peak memory, MB", f"{found.peak_rss_mb:,.0f}")
    table.add_row("load, s", f"{found.load_s:.2f}")
    return Group(table, Text(), Text(found.method))


def _cells(timing: SpeedTiming) -> tuple[str, str, str, str]:
    median, tail = (format_number(value, 4) for value in (timing.median, timing.tail))
    return median, format_interval(timing.low, timing.high), tail, format_interval(timing.tail_low, timing.tail_high)
