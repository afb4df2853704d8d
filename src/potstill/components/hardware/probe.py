"""Memory size, memory bandwidth and matrix rate of this machine, measured with numpy in a few seconds."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["physical_memory", "probe"]

_FLOATS = 1 << 24
"""64 MiB per thread, more than the caches hold."""
_MATRIX = 768


def physical_memory() -> int:
    """Bytes of memory of this machine, or the container's limit where that is lower.

    Raises:
        OSError: the system does not report it.
    """
    if sys.platform == "win32":
        return _windows_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                limit = file.read().strip()
        except OSError:
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def _windows_memory() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (f"field{i}", ctypes.c_ulonglong) for i in range(7)
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined,unused-ignore]
        raise OSError("Windows does not report the size of the memory")
    return int(status.field0)


def _threads() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def probe(seconds: float = 3.0) -> tuple[float, float]:
    """Bytes/s that all cores together read, and FP32 operations/s of a matrix product: the best of several passes.

    Args:
        seconds: how long to measure, roughly; at least one pass of each is made.
    """
    threads = min(_threads(), 16)
    floats = _FLOATS if seconds >= 1 else _FLOATS // 4
    parts = [np.ones(floats, np.float32) for _ in range(threads)]
    bandwidth = compute = 0.0
    with ThreadPoolExecutor(threads) as pool:
        end = time.perf_counter() + seconds / 2
        while not bandwidth or time.perf_counter() < end:
            begun = time.perf_counter()
            list(pool.map(np.max, parts))
            bandwidth = max(bandwidth, 4 * floats * threads / (time.perf_counter() - begun))
    del parts
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    end = time.perf_counter() + seconds / 2
    while not compute or time.perf_counter() < end:
        begun = time.perf_counter()
        matrix @ matrix
        compute = max(compute, 2 * _MATRIX**3 / (time.perf_counter() - begun))
    return bandwidth, compute
