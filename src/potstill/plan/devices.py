"""Devices by name, from devices.toml, and the machine this runs on."""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.errors import UsageError

__all__ = ["Device", "calibration_file", "find_device", "known_device", "load_devices", "this_machine"]

GIB = 2**30

_EFFICIENCY = {"cpu": (0.4, 0.8), "unified": (0.5, 0.85), "gpu": (0.5, 0.85)}
"""Share of the sheet's bandwidth that decoding reached in published runs, low and high."""
_COMPUTE = {"cpu": (0.25, 1.0), "unified": (0.25, 0.65), "gpu": (0.2, 0.6)}
"""Share of the sheet's TFLOPS that a prompt reached; a CPU's integer kernels come near its FP32 peak."""


@dataclass(frozen=True)
class Device:
    """Memory in bytes, bandwidth in bytes/s, compute in operations/s; see devices.toml for the rest.

    `rates` are this machine's own, from `calibrate-device`, with `threads` threads: see `calibrated_seconds`.
    """

    name: str
    kind: str
    backend: str
    memory: int
    usable: float
    bandwidth: float
    compute: float
    storage: float
    source: str
    date: str
    aliases: tuple[str, ...] = ()
    efficiency: tuple[float, float] = (0.5, 0.85)
    compute_efficiency: tuple[float, float] = (0.2, 0.6)
    rates: dict[str, float] = field(default_factory=dict)
    threads: int = 1

    @property
    def usable_bytes(self) -> int:
        """What a model may have."""
        return int(self.memory * self.usable)

    def with_memory(self, nbytes: float) -> Device:
        """The device with so many bytes free for a model."""
        return replace(self, memory=int(nbytes), usable=1.0)


def _from_toml(row: dict[str, Any]) -> Device:
    return Device(
        name=row["name"],
        kind=row["kind"],
        backend=row["backend"],
        memory=int(row["memory"] * GIB),
        usable=row["usable"],
        bandwidth=row["bandwidth"] * 1e9,
        compute=row["tflops"] * 1e12,
        storage=row["storage"] * 1e9,
        source=row["source"],
        date=row["date"],
        aliases=tuple(row.get("aliases", ())),
        efficiency=_EFFICIENCY[row["kind"]],
        compute_efficiency=_COMPUTE[row["kind"]],
    )


@cache
def load_devices() -> tuple[Device, ...]:
    """Every device of devices.toml, in its order."""
    text = resources.files("potstill.plan").joinpath("devices.toml").read_text(encoding="utf-8")
    return tuple(_from_toml(row) for row in tomllib.loads(text)["device"])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def find_device(name: str, *, quick: bool = False) -> Device:
    """A device by its name or an alias; capitals, blanks and dashes do not count. `this` probes this machine.

    Args:
        quick: with `this`, measure for a tenth of a second only.

    Raises:
        UsageError: no device has the name; the nearest are named.
    """
    wanted = _plain(name)
    if wanted == "this":
        return this_machine(quick=quick)
    devices = load_devices()
    for device in devices:
        if wanted in (_plain(device.name), *map(_plain, device.aliases)):
            return device
    inside = [device for device in devices if wanted and wanted in _plain(device.name)]
    if len(inside) == 1:
        return inside[0]
    near = [device.name for device in inside] or difflib.get_close_matches(name, [d.name for d in devices], 4, 0.4)
    hint = f"Did you mean {', '.join(near[:6])}?" if near else "potstill plan --devices lists them."
    raise UsageError(
        f"--device {name!r}: no such device among {len(devices)}. {hint} 'this' is the machine you are on."
    )


def known_device(name: str) -> Device | None:
    """The device of a recipe's target.device, which may be any words; None where they name none."""
    try:
        return find_device(name, quick=True)
    except UsageError:
        return None


def calibration_file() -> Path:
    """Where `calibrate-device` keeps what it measured."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "potstill" / "device.json"


def this_machine(*, quick: bool = False) -> Device:
    """The machine this runs on: its memory, and its rates measured now, or as calibrated before.

    Raises:
        UsageError: the calibration's file is damaged.
    """
    from potstill.plan.probe import physical_memory, probe

    path, rates, threads = calibration_file(), {}, 1
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            rates, threads = {str(k): float(v) for k, v in stored["rates"].items()}, int(stored["threads"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path}: not a calibration. Run potstill calibrate-device again, or delete it.") from None
    bandwidth, compute = probe(seconds=0.1 if quick else 3.0)
    machine = platform.machine().lower()
    return Device(
        name="this machine",
        kind="cpu",
        backend="arm" if machine.startswith(("arm", "aarch")) else "x86",
        memory=physical_memory(),
        usable=0.9,
        bandwidth=bandwidth,
        compute=compute,
        storage=1e9,
        source="measured here" + (" quickly" if quick else "") + (", calibrated" if rates else ""),
        date="now",
        efficiency=(0.4, 0.9),
        compute_efficiency=_COMPUTE["cpu"],
        rates=rates,
        threads=threads,
    )
