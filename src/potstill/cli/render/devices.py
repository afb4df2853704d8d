"""The list of devices, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.cli.render.tables import aligned
from potstill.components.hardware.devices import Device

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_devices"]


def render_devices(devices: Sequence[Device]) -> RenderableType:
    """A line per device; where its numbers come from is in the JSON output."""
    from rich.console import Group
    from rich.text import Text

    rows = [("device", "kind", "GiB", "usable", "GB/s", "TFLOPS", "entered"), *map(_cells, devices)]
    head, *lines = aligned(rows, left=(0, 1))
    notes = (
        "GiB: memory; usable: share of it that a model can have; GB/s: memory bandwidth.",
        "The source of each number is in `potstill devices --json`.",
    )
    return Group(Text(head, style="bold"), *map(Text, lines), Text(), *map(Text, notes))


def _cells(device: Device) -> tuple[str, ...]:
    numbers = f"{device.memory / 2**30:g}", f"{device.usable:.0%}", f"{device.bandwidth / 1e9:g}"
    return device.name, device.kind, *numbers, f"{device.compute / 1e12:g}", device.date
