"""Verify a package: its files are those of its manifest, bit by bit, and its manifest is the one that was signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from potstill.components.packages.keys import PublicKey, today
from potstill.components.packages.sign import SignatureProblem, check_signature, read_signature
from potstill.core.artifacts.manifest import FileEntry, Manifest, manifest_digest, manifest_files
from potstill.core.artifacts.signature import Envelope, SignedWith
from potstill.core.errors import DataError
from potstill.core.files import read_json_object
from potstill.core.hashing import hash_file
from potstill.core.words import printable

__all__ = ["Verified", "verify_package", "verify_signed"]


@dataclass(frozen=True)
class Verified:
    """What verification found.

    problems      one sentence each; none for a package that is as it was made
    signed_with   the key that the package says it was signed with; None for a package that is not signed
    checked       whether the signature was checked with a key
    """

    problems: tuple[str, ...]
    signed_with: SignedWith | None = None
    checked: bool = False


def verify_signed(folder: Path, key: PublicKey | None) -> Verified:
    """Verify a package's files, and its signature; without a key, only that the signature is of this manifest."""
    problems = verify_package(folder)
    if not (folder / Manifest.FILE).is_file():
        return Verified(tuple(problems))
    try:
        signature = read_signature(folder)
        if key and signature is None:
            raise SignatureProblem(f"The package is not signed: it has no {Envelope.FILE}.")
        if key and signature:
            check_signature(signature, key, today())
    except SignatureProblem as problem:
        return Verified((*problems, str(problem)))
    if signature is None:
        return Verified(tuple(problems))
    return Verified(tuple(problems), signature.signed_with, checked=key is not None)


def verify_package(folder: Path) -> list[str]:
    """Problems of a package, one sentence each; empty for a package that matches its manifest.

    Every file in the manifest must exist with its hash and size, the manifest must have its own hash, and there must be
    no other file than a signature. This shows that a package is complete and unchanged, not who made it.
    """
    path = folder / Manifest.FILE
    if not path.is_file():
        if (folder / "package" / Manifest.FILE).is_file():
            return [f"This is a step of a run, not a package. Give the folder {folder / 'package'} in it."]
        return [f"{Manifest.FILE} is missing, so the package cannot be verified."]
    try:
        manifest = read_json_object(path)
        files = manifest_files(manifest)
        changed = manifest["predicate"].get("sha256") != manifest_digest(manifest)
    except (DataError, ValidationError):
        return [f"{Manifest.FILE} is not a manifest of potstill: it has no readable list of files."]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    problems = [_problem(folder, name, entry, name in present) for name, entry in files.items()]
    extra = sorted(present - files.keys() - {Manifest.FILE, Envelope.FILE})
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
