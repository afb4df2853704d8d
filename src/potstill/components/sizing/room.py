"""What a run needs, compared with what is free on this machine at this moment."""

from __future__ import annotations

import shutil
from pathlib import Path

from potstill.components.hardware.devices import Device
from potstill.components.hardware.probe import physical_memory
from potstill.core.artifacts.check import DiskNeed, Download, MemoryNeed
from potstill.core.format import format_size

__all__ = ["disk_problem", "download_problem", "memory_problem"]

_KEYS = {
    "train": "train.batch_tokens",
    "finetune": "teacher.finetune.batch_tokens",
    "generate": "generate.batch_size",
}


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def disk_problem(need: DiskNeed, runs: Path) -> str | None:
    """A sentence where the disk under the folder of runs has no room for a run.

    Args:
        need: what the whole run needs.
        runs: folder of the run; it need not exist.
    """
    place = _existing(runs)
    free = shutil.disk_usage(place).free
    if need.needed <= free:
        return None
    return (
        f"{place}: the run needs {format_size(need.needed)} of disk, most of it for checkpoints and models, and "
        f"{format_size(free)} are free. Free some, or choose another folder with --runs."
    )


def download_problem(download: Download | None) -> str | None:
    """A sentence where the hub's cache has no room for the weights that are still to be downloaded."""
    if download is None:
        return None
    place = _existing(Path(download.folder))
    free = shutil.disk_usage(place).free
    if download.bytes <= free:
        return None
    return (
        f"{place}: the weights of {' and '.join(download.models)} are still to be downloaded, about "
        f"{format_size(download.bytes)}, and {format_size(free)} are free. Free some, or move the cache with HF_HOME."
    )


def memory_problem(need: MemoryNeed, gpu: Device | None = None) -> str | None:
    """A sentence where a stage needs more memory than a device has, or this machine, whose GPU may have its own.

    Args:
        need: what the stage needs.
        gpu: the device that trains, where it is not this machine.
    """
    if gpu:
        needed, room = need.needed - (need.parts.get("process", 0) if gpu.kind == "gpu" else 0), gpu.usable_bytes
        place, advice = gpu.name, "Lower it, set trainer.activation_checkpointing or LoRA, or name a larger device."
    else:
        try:
            needed, room = need.needed, physical_memory()
        except (ValueError, OSError, AttributeError):
            return None
        place, advice = "this machine", "Lower it, unless a GPU with that much memory does the work."
    if needed <= room:
        return None
    parts = ", ".join(f"{name} {format_size(size)}" for name, size in need.parts.items() if size)
    return (
        f"{_KEYS[need.stage]}: the {need.stage} stage will need about {format_size(needed)} of memory ({parts}), "
        f"and {place} has {format_size(room)}. {advice}"
    )
