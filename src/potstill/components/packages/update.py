"""Update an installed package from a newer one: fetch what changed, verify it, and swap; and go back again.

The installed folder is a symbolic link to one of the versions in a folder next to it. A version is complete and
verified before the link is pointed at it, in one atomic rename. Whoever loads the package finds the old or the new one.

    NAME -> NAME.versions/SHA12      what is installed
    NAME.versions/SHA12/             a package, named by its manifest's SHA-256
    NAME.versions/previous -> SHA12  what was installed before
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pydantic import ValidationError

from potstill.components.packages.keys import PublicKey
from potstill.components.packages.verify import verify_package, verify_signed
from potstill.core.artifacts.manifest import Manifest, manifest_files
from potstill.core.artifacts.signature import Envelope
from potstill.core.errors import StepError
from potstill.core.files import MOST_BYTES, file_errors, move_into_place, read_json_object, write_link
from potstill.core.hashing import hash_file
from potstill.core.words import printable

__all__ = ["Updated", "roll_back", "update_package"]

_PREVIOUS = "previous"
_DIGITS = 12
_SECONDS = 60.0  # without a byte


@dataclass(frozen=True)
class Updated:
    """Names of the files that were fetched and of those that were there already, and the number of bytes fetched."""

    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    bytes: int


def update_package(folder: Path, source: str, key: PublicKey | None = None) -> Updated:
    """Make `folder` the package at `source`; a folder that does not exist yet is installed.

    Args:
        folder: the installed package.
        source: a package's folder, or the URL of one: its files are at URL/NAME.
        key: the key that must have signed the new package; None: its signature is not checked.

    Raises:
        StepError: a file cannot be fetched, or the new package is not valid. What is installed stays as it was.
    """
    fetch = partial(_download, source) if source.startswith(("http://", "https://")) else partial(_copy, Path(source))
    versions = _versions(folder)
    incoming = versions / "incoming"
    with file_errors(folder):
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            fetched, kept = _collect(folder, fetch, incoming, source)
            problems = verify_signed(incoming, key).problems
            if problems:
                raise StepError(f"{source}: this package was refused, and nothing was changed. {' '.join(problems)}")
            version = versions / hash_file(incoming / Manifest.FILE)[:_DIGITS]
            if not _is_current(folder, version):
                move_into_place(incoming, version)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        _install(folder, version)
        _forget_older(folder)
    return Updated(tuple(fetched), tuple(kept), sum((version / name).stat().st_size for name in fetched))


def roll_back(folder: Path) -> None:
    """Make `folder` the package that it was before its last update.

    Raises:
        StepError: there is no earlier package, or it has changed on the disk.
    """
    previous = _versions(folder) / _PREVIOUS
    if not previous.is_dir():
        raise StepError(f"{folder}: there is no earlier version to go back to.")
    version = previous.resolve()
    if problems := verify_package(version):
        raise StepError(f"{folder}: the earlier version has changed, and nothing was done. {' '.join(problems)}")
    _install(folder, version)


def _collect(folder: Path, fetch: Fetch, incoming: Path, source: str) -> tuple[list[str], list[str]]:
    """Bring a package together: names of the files that were fetched, and of those that are installed already."""
    fetch(Manifest.FILE, incoming / Manifest.FILE, MOST_BYTES)
    try:
        files = manifest_files(read_json_object(incoming / Manifest.FILE, error=StepError))
    except ValidationError:
        raise StepError(f"{source}: {Manifest.FILE} is not a manifest of potstill. Nothing was changed.") from None
    with suppress(_Absent):
        fetch(Envelope.FILE, incoming / Envelope.FILE, MOST_BYTES)
    fetched, kept = [], []
    for name, entry in files.items():
        if Path(name).name != name:
            raise StepError(f"{source}: the manifest names {printable(name)}, which is outside the package.")
        installed = folder / name
        if installed.is_file() and not installed.is_symlink() and hash_file(installed) == entry.sha256:
            shutil.copyfile(installed, incoming / name)
            kept.append(name)
        else:
            fetch(name, incoming / name, entry.bytes)
            fetched.append(name)
    return fetched, kept


def _versions(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.versions")


def _is_current(folder: Path, version: Path) -> bool:
    return folder.exists() and version.exists() and folder.samefile(version)


def _install(folder: Path, version: Path) -> None:
    """Point the link at a version, and remember the one before. A folder that is no link yet becomes a version."""
    versions = _versions(folder)
    if folder.is_dir() and not folder.is_symlink():
        before = versions / "first"
        folder.rename(before)
        write_link(folder, before)
    if _is_current(folder, version):
        return
    if folder.exists():
        write_link(versions / _PREVIOUS, folder.resolve())
    write_link(folder, version)


def _forget_older(folder: Path) -> None:
    """Delete the versions that are neither installed nor the one before."""
    versions = _versions(folder)
    kept = {folder.resolve(), (versions / _PREVIOUS).resolve()}
    for path in versions.iterdir():
        if not path.is_symlink() and path.resolve() not in kept:
            shutil.rmtree(path)


class _Absent(StepError):
    """The source has no such file."""


class Fetch(Protocol):
    """Writes the source's file of this name to `out`; a longer one than `most` bytes is an error."""

    def __call__(self, name: str, out: Path, most: int) -> None: ...


def _copy(source: Path, name: str, out: Path, most: int) -> None:
    path = source / name
    if not path.is_file():
        raise _Absent(f"{source}: the package has no {printable(name)}. Nothing was changed.")
    if path.stat().st_size > most:
        raise StepError(f"{path}: larger than {most:,} bytes. Nothing was changed.")
    shutil.copyfile(path, out)


def _download(source: str, name: str, out: Path, most: int) -> None:
    import httpx

    url = f"{source.rstrip('/')}/{quote(name)}"
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_SECONDS) as reply, out.open("wb") as file:
            if reply.status_code == httpx.codes.NOT_FOUND:
                out.unlink()
                raise _Absent(f"{url}: not found. Nothing was changed.")
            reply.raise_for_status()
            left = most
            for part in reply.iter_bytes():
                left -= len(part)
                if left < 0:
                    raise StepError(f"{url}: larger than {most:,} bytes. Nothing was changed.")
                file.write(part)
    except httpx.HTTPError as error:
        raise StepError(f"{url}: the file cannot be fetched ({error}). Nothing was changed.") from None
