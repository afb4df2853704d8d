"""A registry of releases: a folder to which only lines and objects are added.

releases.jsonl      one line per release, each with the hash of the line before
objects/AB/ABCD...  files by their SHA-256: release.json, results.json, item-results.jsonl, manifest.json
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from potstill.core.artifacts.base import parsed
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.release import RegistryEntry, Release, ReleasedSuite
from potstill.core.artifacts.suite_results import ITEM_RESULTS, ItemResult, SuiteResults, read_results
from potstill.core.errors import StepError, UsageError
from potstill.core.files import file_errors, file_lines, read_json_lines, write_bytes, write_json
from potstill.core.hashing import hash_file

__all__ = ["RELEASES", "Released", "find_release", "read_registry", "record_release", "results_of", "split_version"]

RELEASES = "releases.jsonl"
_OBJECTS = "objects"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_RESTORE = "Restore the registry from version control or a copy."


@dataclass(frozen=True)
class Released:
    """A release as it was read from a registry."""

    registry: Path
    entry: RegistryEntry
    release: Release

    @property
    def title(self) -> str:
        """Number and name, for people."""
        return f"{self.entry.number} ({self.entry.name})"


def split_version(text: str) -> tuple[Path, str | None]:
    """Folder and version of `REGISTRY[@VERSION]`."""
    if Path(text).is_dir():
        return Path(text), None
    folder, at, version = text.rpartition("@")
    return (Path(folder), version) if at and folder else (Path(text), None)


def read_registry(registry: Path) -> list[Released]:
    """All releases, oldest first.

    Raises:
        UsageError: the folder is not a registry.
        StepError: a line or an object was changed or removed.
    """
    path = registry / RELEASES
    if not path.is_file():
        raise UsageError(
            f"{registry}: this folder has no {RELEASES}, so it is not a registry. Record the first release with "
            "`potstill release RESULTS --registry FOLDER`."
        )
    found: list[Released] = []
    previous = ""
    for (number, value), line in zip(read_json_lines(path, error=StepError), file_lines(path), strict=True):
        where = f"{path}:{number}"
        entry = parsed(RegistryEntry, value, where, _RESTORE)
        if entry.number != len(found) + 1 or entry.previous != previous:
            raise StepError(f"{where}: the line does not follow the one before, so a release was changed. {_RESTORE}")
        previous = hashlib.sha256(line).hexdigest()
        release = Release.read_file(_object(registry, entry.release), "restore the registry from a copy")
        found.append(Released(registry, entry, release))
    return found


def find_release(registry: Path, version: str | None) -> Released:
    """A release by its name or its number; the last one for None.

    Raises:
        UsageError: there is none.
        StepError: the registry is damaged.
    """
    found = read_registry(registry)
    if not found:
        raise UsageError(f"{registry}: the registry has no release yet.")
    if version is None:
        return found[-1]
    matching = [each for each in found if version in (each.entry.name, str(each.entry.number))]
    if not matching:
        names = ", ".join(each.title for each in found)
        raise UsageError(f"{registry}: it has no release {version!r}. Its releases are {names}.")
    return matching[-1]


def results_of(released: Released, suite: str) -> tuple[SuiteResults, list[ItemResult]] | None:
    """The results of a release on a suite; None where it has none.

    Raises:
        StepError: an object was changed or removed.
    """
    found = next((each for each in released.release.suites if each.suite == suite), None)
    if found is None:
        return None
    results = SuiteResults.read_file(_object(released.registry, found.results), "restore the registry from a copy")
    lines = _object(released.registry, found.items)
    return results, [parsed(ItemResult, value, f"{lines}:{n}", _RESTORE) for n, value in read_json_lines(lines)]


def record_release(registry: Path, folders: Sequence[Path], package: Path | None, name: str | None) -> Released:
    """Record results of one model as the next release.

    Args:
        registry: the folder; it is made if it does not exist.
        folders: results that `potstill evaluate` wrote, one folder per suite.
        package: the package of the model, or None.
        name: name of the release; None: its number.

    Raises:
        UsageError: the results are of several models or of one suite twice, or the release is recorded already.
        StepError: results are broken, or the package has another model.
    """
    read = [(folder, read_results(folder)[0]) for folder in folders]
    model = read[0][1].model
    for folder, results in read[1:]:
        if results.model.sha256 != model.sha256:
            raise UsageError(f"{folder}: these are results of another model than those of {folders[0]}.")
    suites = [results.suite for _, results in read]
    if repeated := next((suite for suite in suites if suites.count(suite) > 1), None):
        raise UsageError(f"Results on the suite {repeated} were given twice.")
    if name is not None and (not _NAME.fullmatch(name) or name.isdecimal()):
        raise UsageError(
            f"{name!r} cannot be the name of a release: use letters, digits, dots and hyphens, as in v1.2."
        )
    manifest = _checked_manifest(package, model.sha256) if package else None
    with file_errors(registry), _locked(registry):
        entries = read_registry(registry) if (registry / RELEASES).exists() else []
        if taken := next((each for each in entries if each.entry.name == name), None):
            raise UsageError(f"{registry}: release {taken.entry.number} has the name {name!r} already.")
        release = Release(
            model=model,
            suites=tuple(
                ReleasedSuite(
                    suite=results.suite,
                    results=_store(registry, folder / SuiteResults.FILE),
                    items=_store(registry, folder / ITEM_RESULTS),
                )
                for folder, results in read
            ),
            manifest=_store(registry, manifest) if manifest else None,
        )
        return _append(registry, entries, release, name)


def _append(registry: Path, entries: list[Released], release: Release, name: str | None) -> Released:
    temporary = registry / _OBJECTS / Release.FILE
    write_json(temporary, release.to_json())
    digest = _store(registry, temporary)
    temporary.unlink()
    if known := next((each for each in entries if each.entry.release == digest), None):
        raise UsageError(f"{registry}: this is release {known.title} already. Nothing was recorded.")
    path = registry / RELEASES
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"  # an editor can have removed it
    last = old.rstrip(b"\n").rpartition(b"\n")[2]
    number = len(entries) + 1
    entry = RegistryEntry(
        number=number,
        name=name or str(number),
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        release=digest,
        previous=hashlib.sha256(last).hexdigest() if last else "",
    )
    write_bytes(path, old + json.dumps(entry.to_json(), ensure_ascii=False).encode() + b"\n")
    return Released(registry, entry, release)


def _checked_manifest(package: Path, model: str) -> Path:
    from potstill.components.packages.verify import verify_package

    if problems := verify_package(package):
        raise StepError(f"{package}: {problems[0]} Only a package that is whole can be released.")
    if all(hash_file(path) != model for path in package.glob("*.gguf")):
        raise StepError(f"{package}: its GGUF file is not the model of the results. Evaluate the package itself.")
    return package / Manifest.FILE


def _store(registry: Path, file: Path) -> str:
    """Copy a file into the registry under its hash, which is returned."""
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path = registry / _OBJECTS / digest[:2] / digest
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    return digest


def _object(registry: Path, digest: str) -> Path:
    path = registry / _OBJECTS / digest[:2] / digest
    if not path.is_file() or hash_file(path) != digest:
        raise StepError(f"{path}: the file is missing or has changed since it was recorded. {_RESTORE}")
    return path


@contextmanager
def _locked(registry: Path) -> Iterator[None]:
    """Hold the registry against other processes that record; the lock ends with the process."""
    (registry / _OBJECTS).mkdir(parents=True, exist_ok=True)
    with (registry / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
