"""Ways to damage a file: what a disk, a copy that was cut off, or a person may do to it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["WAYS", "damage"]

WAYS = ("flip", "truncate", "empty", "delete", "swap")


def damage(path: Path, way: str, other: Path) -> None:
    """Damage a file: flip a bit, cut it to half, empty it, delete it, or swap it with another file.

    It is written anew, because a package's files may be links to files of other steps.
    """
    data = path.read_bytes()
    path.unlink()
    middle = len(data) // 2
    if way == "flip":
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :])
    elif way == "truncate":
        path.write_bytes(data[:middle])
    elif way == "empty":
        path.touch()
    elif way == "swap":
        assert data != other.read_bytes()
        other.rename(path)
        other.write_bytes(data)
    else:
        assert way == "delete"
