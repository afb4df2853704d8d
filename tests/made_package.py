"""Packages written by hand: files and a manifest of them, without a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.components.packages.entries import package_files
from potstill.core.artifacts.manifest import FileEntry, Manifest, manifest_digest
from potstill.core.artifacts.statement import STATEMENT

FILES = {"m.gguf": b"weights", "README.md": b"# m", "LICENSE": b""}


def manifest_of(files: Mapping[str, FileEntry], **predicate: Any) -> dict[str, Any]:
    """A manifest's JSON object with its own hash, which names these files."""
    subject = [
        {"name": name, "digest": {"sha256": entry.sha256}, "annotations": {"bytes": entry.bytes}}
        for name, entry in files.items()
    ]
    said: dict[str, Any] = {"format": Manifest.FORMAT, **predicate}
    value = {"_type": STATEMENT, "subject": subject, "predicateType": Manifest.PREDICATE, "predicate": said}
    said["sha256"] = manifest_digest(value)
    return value


def make_package(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """A folder with files and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / Manifest.FILE).write_text(json.dumps(manifest_of(package_files(folder))))
    return folder
