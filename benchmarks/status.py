"""What the kernel says of this process's memory."""

from __future__ import annotations

from pathlib import Path


def status_mb(name: str) -> float:
    """A line of /proc/self/status in MB of 2^20 bytes: VmRSS, what is resident; VmHWM, the most that was.

    Not ru_maxrss, which starts from the parent's peak.
    """
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{path} has no {name}: memory is measured on Linux alone")
