"""Entries of a manifest: files by hash and size, and steps by how they were made."""

from __future__ import annotations

from pathlib import Path

from potstill.core.artifacts.manifest import DataFile, FileEntry, ManifestStep
from potstill.core.artifacts.step import StepRecord
from potstill.core.hashing import HashedPath, hash_file

__all__ = ["data_file", "file_entry", "package_files", "step_entry"]


def file_entry(path: Path) -> FileEntry:
    """Hash and size of a file."""
    return FileEntry(sha256=hash_file(path), bytes=path.stat().st_size)


def package_files(folder: Path) -> dict[str, FileEntry]:
    """Entries of a package's files by name."""
    return {path.name: file_entry(path) for path in sorted(folder.iterdir())}


def data_file(file: HashedPath) -> DataFile:
    """Name, hash and size of a data file, and the number of its rows if it is JSONL."""
    rows = None
    if file.path.suffix == ".jsonl":
        with file.path.open("rb") as lines:
            rows = sum(1 for line in lines if line.strip())
    return DataFile(file=file.path.name, sha256=file.sha256, bytes=file.path.stat().st_size, rows=rows)


def step_entry(record: StepRecord) -> ManifestStep:
    """The entry of a step, from its own record."""
    return ManifestStep(fingerprint=record.fingerprint, git_commit=record.git_commit)
