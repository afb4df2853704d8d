"""Verify a package: its files are those of its manifest, bit by bit."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from potstill.core.artifacts.manifest import FileEntry, FileList, Manifest, manifest_digest
from potstill.core.errors import DataError
from potstill.core.files import read_json_object
from potstill.core.hashing import hash_file
from potstill.core.words import printable

__all__ = ["verify_package"]


def verify_package(folder: Path) -> list[str]:
    """Problems of a package, one sentence each; empty for a package that matches its manifest.

    Every file in the manifest must exist with its hash and size, the manifest must have its own hash, and there must be
    no other file. This shows that a package is complete and unchanged, not who made it.
    """
    path = folder / Manifest.FILE
    if not path.is_file():
        if (folder / "package" / Manifest.FILE).is_file():
            return [f"This is a step of a run, not a package. Give the folder {folder / 'package'} in it."]
        return [f"{Manifest.FILE} is missing, so the package cannot be verified."]
    try:
        manifest = read_json_object(path)
        files = FileList.model_validate(manifest).files
        changed = manifest.get("sha256") != manifest_digest(manifest)
    except (DataError, ValidationError):
        return [f"{Manifest.FILE} is not a manifest of potstill: it has no readable list of files."]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    problems = [_problem(folder, name, entry, name in present) for name, entry in files.items()]
    extra = sorted(present - files.keys() - {Manifest.FILE})
    if changed:
        problems.insert(0, f"{Manifest.FILE} has changed, or an older version wrote it: its own SHA-256 is not right.")
    problems += [f"{printable(name)} is not in the manifest." for name in extra]
    return [problem for problem in problems if problem]


def _problem(folder: Path, name: str, entry: FileEntry, present: bool) -> str | None:
    path, shown = folder / name, printable(name)
    if Path(name).name != name or (present and path.is_symlink()):
        return f"{shown} is not a plain file in the package's own folder."
    if not present or not path.is_file():  # some names cannot be looked up at all
        return f"{shown} is missing."
    if path.stat().st_size != entry.bytes:
        return f"{shown} has {path.stat().st_size} bytes, but the manifest says {entry.bytes}."
    found = hash_file(path)
    if found == entry.sha256:
        return None
    return f"{shown} has changed: its SHA-256 is {found}, but the manifest says {entry.sha256}."
