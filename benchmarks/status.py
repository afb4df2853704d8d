"""Memory of this process, as the kernel reports it."""

from __future__ import annotations

from pathlib import Path


def status_mb(name: str) -> float:
    """A line of /proc/self/status in MB of 2^20 bytes: VmRSS is the resident set, VmHWM its highest value so far.

    ru_maxrss does not serve, because it starts from the peak of the parent process.
    """
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{path} has no {name}: memory is measured on Linux alone")
