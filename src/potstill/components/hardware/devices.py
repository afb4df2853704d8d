"""Devices by name, from devices.toml, and the machine this runs on."""

from __future__ import annotations

import difflib
import os
import platform
import re
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.core.errors import DataError, UsageError
from potstill.core.files import read_json, read_json_object, write_json

__all__ = [
    "Device", "calibration_file", "find_device", "known_device", "load_devices", "machine_name", "near_devices",
    "this_machine",
]  # fmt: skip

GIB = 2**30
_DAY = 86_400

_EFFICIENCY = {"cpu": (0.4, 0.8), "unified": (0.5, 0.85), "gpu": (0.5, 0.85)}
"""Share of the sheet's bandwidth that decoding reached in published runs, low and high."""
_COMPUTE = {"cpu": (0.25, 1.0), "unified": (0.25, 0.65), "gpu": (0.2, 0.6)}
"""Share of the sheet's TFLOPS that a prompt reached; a CPU's integer kernels come near its FP32 peak."""


@dataclass(frozen=True)
class Device:
    """Memory in bytes, bandwidth in bytes/s, compute in operations/s; see devices.toml for the rest.

    `rates` are this machine's own, from `calibrate-device`: see `calibrated_seconds`; `prompt_rates` are operations/s
    by tensor type while a prompt is read.
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
    prompt_rates: dict[str, float] = field(default_factory=dict)

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
    text = resources.files("potstill.components.hardware").joinpath("devices.toml").read_text(encoding="utf-8")
    return tuple(_from_toml(row) for row in tomllib.loads(text)["device"])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def find_device(name: str, *, quick: bool = False, option: str = "--device") -> Device:
    """A device by its name or an alias; capitals, blanks and dashes do not count. `this` probes this machine.

    Args:
        quick: with `this`, take what was measured before, or measure for a tenth of a second only.
        option: where the name was given, for the message.

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
        f"{option} {name!r}: no such device among {len(devices)}. {hint} 'this' is the machine you are on."
    )


def known_device(name: str) -> Device | None:
    """The device of a recipe's target.device, which may be any words; None where they name none."""
    try:
        return find_device(name, quick=True)
    except UsageError:
        return None


def near_devices(name: str) -> list[str]:
    """Devices whose names are so near that one of them may be meant."""
    plain = {_plain(device.name): device.name for device in load_devices()}
    return [plain[found] for found in difflib.get_close_matches(_plain(name), plain, 3, 0.8)]


def calibration_file() -> Path:
    """Where `calibrate-device` keeps what it measured."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "potstill" / "device.json"


def _probe_file() -> Path:
    """Where the last probe is kept, so that plans of one machine do not differ from call to call."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "potstill" / "probe.json"


def machine_name() -> str:
    """What tells this machine from others that share a home folder."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def _probed(quick: bool) -> tuple[float, float]:
    """Bandwidth and compute of this machine: the highest measured here within a day, by a probe of a moment or of
    seconds. A peak is looked for, and other work on the machine only lowers what a probe finds.
    """
    from potstill.components.hardware.probe import probe

    path, now = _probe_file(), time.time()
    kept, since = (0.0, 0.0), now
    with suppress(DataError, ValueError, KeyError, TypeError):
        found = read_json(path)
        if found["machine"] == machine_name() and 0 <= now - found["since"] < _DAY:
            kept, since = (float(found["bandwidth"]), float(found["compute"])), float(found["since"])
    if quick and min(kept) > 0:
        return kept
    bandwidth, compute = map(max, probe(seconds=0.2 if quick else 3.0), kept)
    peak = {"machine": machine_name(), "since": since, "bandwidth": bandwidth, "compute": compute}
    with suppress(OSError):  # a home that cannot be written costs a probe the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, peak)
    return bandwidth, compute


def this_machine(*, quick: bool = False) -> Device:
    """The machine this runs on: its memory, its rates as probed, and as calibrated where it is.

    Args:
        quick: see `find_device`.

    Raises:
        UsageError: the calibration's file is damaged.
    """
    from potstill.components.hardware.probe import physical_memory

    path, calibrated = calibration_file(), dict[str, Any]()
    if path.is_file():
        try:
            stored = read_json_object(path)
            threads = int(stored["threads"])
            # a file of an earlier version has none of prompts, and no machine
            kept = {"rates": stored["rates"], "prompt_rates": stored.get("prompt_rates", {})}
            if stored.get("machine", machine_name()) == machine_name():
                calibrated = {key: {str(k): float(v) for k, v in rates.items()} for key, rates in kept.items()}
        except (DataError, ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path}: not a calibration. Run potstill calibrate-device again, or delete it.") from None
    bandwidth, compute = _probed(quick)
    machine = platform.machine().lower()
    return Device(
        name="this machine" + (f", {threads} threads" if calibrated else ""),
        kind="cpu",
        backend="arm" if machine.startswith(("arm", "aarch")) else "x86",
        memory=physical_memory(),
        usable=0.9,
        bandwidth=bandwidth,
        compute=compute,
        storage=1e9,
        source="measured here" + (", calibrated" if calibrated else ""),
        date="now",
        efficiency=(0.4, 0.9),
        compute_efficiency=_COMPUTE["cpu"],
        **calibrated,
    )
