"""Devices by name, from devices.toml, and this machine."""

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

from potstill.components.hardware.calibration import machine_name, read_calibration
from potstill.core.errors import PotstillError, UsageError
from potstill.core.files import read_json_object, write_json

__all__ = ["Device", "find_device", "known_device", "load_devices", "near_devices", "this_machine"]

GIB = 2**30
_DAY = 86_400

_EFFICIENCY = {
    "x86": (0.39, 0.78), "arm": (0.4, 0.8), "metal": (0.65, 0.93), "cuda": (0.52, 0.85),
    "hip": (0.52, 0.85), "vulkan": (0.52, 0.85),
}  # fmt: skip
"""Share of the data sheet's bandwidth that decoding reached in published runs, by llama.cpp's backend, low and high.
Metal's is the slope between the Q4_0, Q8_0 and F16 files of one model (llama.cpp discussion 4167), because its layers
cost time that does not depend on bytes."""
_COMPUTE = {
    "x86": (0.45, 1.8), "arm": (0.25, 1.0), "metal": (0.29, 0.755), "cuda": (0.19, 0.57), "hip": (0.19, 0.57),
    "vulkan": (0.18, 0.468),
}  # fmt: skip
"""Share of the data sheet's TFLOPS that reading a prompt reached, by backend. A CPU's are those of FP32: llama.cpp
multiplies in 8-bit integers, which AVX-VNNI does at up to four times that rate."""
_TRAINING = {"cpu": (0.25, 1.0), "unified": (0.25, 0.65), "gpu": (0.2, 0.6)}
"""Share of the TFLOPS that training reaches, by kind: assumptions."""


@dataclass(frozen=True)
class Device:
    """Memory in bytes, bandwidth and storage in bytes/s, compute in operations/s; see devices.toml for the rest.

    `training` is the rate of training in operations/s, slow and fast.
    `rates` and `prompt_rates` are measured on this machine: see `calibration.Calibration`.
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
    training: tuple[float, float] = (0.0, 0.0)
    rates: dict[str, float] = field(default_factory=dict)
    prompt_rates: dict[str, float] = field(default_factory=dict)

    @property
    def usable_bytes(self) -> int:
        """Bytes that a model can have."""
        return int(self.memory * self.usable)

    def with_memory(self, nbytes: float) -> Device:
        """The same device with so many bytes free for a model."""
        return replace(self, memory=int(nbytes), usable=1.0)


def _from_toml(row: dict[str, Any]) -> Device:
    trained, (slow, fast) = row["tflops"] * 1e12 * row.get("fp32_sums", 1.0), _TRAINING[row["kind"]]
    return Device(
        name=row["name"],
        kind=row["kind"],
        backend=row["backend"],
        memory=int(row["memory"] * GIB),
        usable=row["usable"],
        bandwidth=float(round(row["bandwidth"] * 1e9)),
        compute=float(round(row["tflops"] * 1e12)),
        storage=float(round(row["storage"] * 1e9)),
        source=row["source"],
        date=row["date"],
        aliases=tuple(row.get("aliases", ())),
        efficiency=tuple(row.get("efficiency", _EFFICIENCY[row["backend"]])),
        compute_efficiency=tuple(row.get("compute_efficiency", _COMPUTE[row["backend"]])),
        training=(trained * slow, trained * fast),
    )


@cache
def load_devices() -> tuple[Device, ...]:
    """Every device of devices.toml, in its order."""
    text = resources.files("potstill.components.hardware").joinpath("devices.toml").read_text(encoding="utf-8")
    return tuple(_from_toml(row) for row in tomllib.loads(text)["device"])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def find_device(name: str, *, quick: bool = False, option: str = "--device") -> Device:
    """A device by its name or an alias; case, spaces and dashes do not matter. `this` probes this machine.

    Args:
        name: the name.
        quick: with `this`, take what was measured before, or measure for a tenth of a second only.
        option: the option with which the name was given, for the message.

    Raises:
        UsageError: no device has the name; the message gives the nearest names.
    """
    plain = _plain(name)
    if plain in ("this", "thismachine"):
        return this_machine(quick=quick)
    devices = load_devices()
    for device in devices:
        if plain in (_plain(device.name), *map(_plain, device.aliases)):
            return device
    inside = [device for device in devices if plain and plain in _plain(device.name)]
    if len(inside) == 1:
        return inside[0]
    near = [device.name for device in inside] or difflib.get_close_matches(name, [d.name for d in devices], 4, 0.4)
    hint = f"Did you mean {', '.join(near[:6])}?" if near else "`potstill devices` lists them."
    raise UsageError(
        f"{option} {name!r}: there is no such device in the list. {hint} 'this' means the machine that you are on."
    )


def known_device(name: str) -> Device | None:
    """The device that a recipe's target.device names; None where its text is not the name of a known device."""
    try:
        return find_device(name, quick=True)
    except UsageError:
        return None


def near_devices(name: str) -> list[str]:
    """Names of devices that are so similar that one of them may be meant."""
    plain = {_plain(device.name): device.name for device in load_devices()}
    return [plain[found] for found in difflib.get_close_matches(_plain(name), plain, 3, 0.8)]


def _probe_file() -> Path:
    """Where the last probe is kept, so that predictions for this machine do not change from call to call."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "potstill" / "probe.json"


def _probed(quick: bool) -> tuple[float, float]:
    """Bandwidth and compute of this machine: the highest that a probe found here within a day.

    The highest counts because other work on the machine only lowers what a probe finds.
    """
    from potstill.components.hardware.probe import probe

    path, now = _probe_file(), time.time()
    kept, since = (0.0, 0.0), now
    with suppress(PotstillError, OSError, ValueError, KeyError, TypeError, OverflowError):
        found = read_json_object(path)
        if found["machine"] == machine_name() and 0 <= now - found["since"] < _DAY:
            kept, since = (float(found["bandwidth"]), float(found["compute"])), float(found["since"])
    if quick and min(kept) > 0:
        return kept
    bandwidth, compute = map(max, probe(seconds=0.2 if quick else 3.0), kept)
    with suppress(OSError):  # a home folder that cannot be written to costs one probe more next time
        path.parent.mkdir(parents=True, exist_ok=True)
        peak = {"machine": machine_name(), "since": since, "bandwidth": bandwidth, "compute": compute}
        write_json(path, peak)
    return bandwidth, compute


def this_machine(*, quick: bool = False) -> Device:
    """This machine: its memory, and its rates as probed, or as calibrated where it has been calibrated.

    Args:
        quick: see `find_device`.

    Raises:
        UsageError: the calibration's file is damaged.
    """
    from potstill.components.hardware.probe import physical_memory

    calibration = read_calibration()
    bandwidth, compute = _probed(quick)
    backend = "arm" if platform.machine().lower().startswith(("arm", "aarch")) else "x86"
    slow, fast = _TRAINING["cpu"]
    return Device(
        name="this machine" + (f", {calibration.threads} threads" if calibration else ""),
        kind="cpu",
        backend=backend,
        memory=physical_memory(),
        usable=0.9,
        bandwidth=bandwidth,
        compute=compute,
        storage=1e9,
        source="measured here" + (", calibrated" if calibration else ""),
        date="now",
        efficiency=(0.4, 0.9),
        compute_efficiency=_COMPUTE[backend],
        training=(compute * slow, compute * fast),
        rates=calibration.rates if calibration else {},
        prompt_rates=calibration.prompt_rates if calibration else {},
    )
