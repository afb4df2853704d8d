"""This machine: the name of its processor, its cores, and how busy they are with the work of other processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "LoadWatch", "cpu_cores", "cpu_name"]

_BOARD = Path("/proc/device-tree/model")
_CPU_INFO = Path("/proc/cpuinfo")
_CPU_NAMES = ("model name", "Model", "Hardware", "cpu model")
_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle, and waiting for a disk
_COUNTED = 8  # of the line's fields: guests are counted in `user` already
_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """Busy cores, as averages over time; None where the system does not say.

    before, after   all processes, in the half second before and after; the average of one minute outside Linux
    others          other processes, while the watch ran
    """

    before: float | None
    after: float | None
    others: float | None


def cpu_name() -> str:
    """The processor's name, or the board's, as the system gives it."""
    with suppress(OSError, UnicodeDecodeError):
        return _BOARD.read_text(encoding="utf-8").strip("\0\n ")
    with suppress(OSError, UnicodeDecodeError):
        lines = [line.partition(":") for line in _CPU_INFO.read_text(encoding="utf-8").split("\n")]
        found = {key.strip(): value.strip() for key, _, value in lines}
        if name := next((found[key] for key in _CPU_NAMES if found.get(key)), None):
            return name
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def cpu_cores() -> int:
    """Number of the machine's cores, each hardware thread counted."""
    return os.cpu_count() or 1


class LoadWatch:
    """Watches how busy the machine is, from its creation until `stop`."""

    def __init__(self) -> None:
        self._before = _now_busy()
        self._start = _Moment.now()

    def stop(self) -> Load:
        """What was seen. Child processes of this one count as its own once they have ended."""
        others = self._start.others_until(_Moment.now())
        return Load(self._before, _now_busy(), others)


@dataclass(frozen=True)
class _Moment:
    """Seconds that have passed, that all cores have worked, and that they have worked for this process."""

    time: float
    busy: float | None
    own: float

    @classmethod
    def now(cls) -> _Moment:
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        return cls(time.perf_counter(), _busy_seconds(), own)

    def others_until(self, end: _Moment) -> float | None:
        """Cores that other processes kept busy, on average."""
        passed = end.time - self.time
        if self.busy is None or end.busy is None or passed <= 0:
            return None
        return round(max(0.0, end.busy - self.busy - (end.own - self.own)) / passed, 2)


def _busy_seconds() -> float | None:
    """Seconds that the cores of this machine have worked since it started; time stolen by other guests counts."""
    try:
        ticks = [int(field) for field in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]][:_COUNTED]
        return (sum(ticks) - sum(ticks[i] for i in _IDLE)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _now_busy() -> float | None:
    """Cores that are busy at the moment."""
    start = _busy_seconds()
    if start is None:
        return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    begun = time.perf_counter()
    time.sleep(_SECONDS)
    end = _busy_seconds()
    return None if end is None else round((end - start) / (time.perf_counter() - begun), 2)
