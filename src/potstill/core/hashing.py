"""Hashes: of files, of models, and of a step's inputs. Equal content gives equal hashes, wherever it lies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from potstill.core.errors import StepError
from potstill.core.recipe.fields import Section

__all__ = ["HashedPath", "fingerprint", "hash_file", "hash_listing", "hash_model", "hashed_value"]

_MODEL_FILES = (".safetensors", ".json", ".jinja")
_MORE_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class HashedPath:
    """A file or a folder, and the SHA-256 (hex) of its content. In a fingerprint the hash alone counts."""

    path: Path
    sha256: str

    @classmethod
    def of_file(cls, path: Path) -> HashedPath:
        """A file with its hash; a file that does not exist has the hash of nothing, and whoever reads it says so."""
        return cls(path, hash_file(path) if path.is_file() else "")

    @classmethod
    def of_model(cls, folder: Path) -> HashedPath:
        """A model's folder; its weights, configuration, tokenizer and template count."""
        return cls(folder, hash_model(folder))


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; a file that is the same by size and time of change is read once per process."""
    found = path.stat()
    return _hash_content(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=4096)
def _hash_content(path: Path, size: int, modified: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_listing(files: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a folder's listing: names and the hashes of their contents, in any order."""
    return hashlib.sha256("".join(f"{name}\0{files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def hash_model(folder: Path, suffixes: tuple[str, ...] = _MODEL_FILES) -> str:
    """SHA-256 (hex) over names and contents of a folder's files that end in one of `suffixes`.

    These are the folder's own files, and those of the one subfolder that transformers reads: more chat templates.

    In a hub cache a large file is a link to a blob that is named by its SHA-256: the name is taken, and the file is not
    read.
    """
    found = {}
    for path in (*folder.iterdir(), *folder.glob(f"{_MORE_TEMPLATES}/*")):
        if path.is_file() and path.name.endswith(suffixes):
            blob = path.resolve().name
            found[path.relative_to(folder).as_posix()] = (
                blob if len(blob) == 64 and path.is_symlink() else hash_file(path)
            )
    return hash_listing(found)


def hashed_value(value: Any, where: str = "inputs") -> Any:
    """A stage's inputs as a JSON value with a stable identity.

    Raises:
        StepError: a part has none, such as a bare path; the message names the field.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, HashedPath):
        return {"sha256": value.sha256}
    if isinstance(value, Section):
        return {"section": type(value).__name__, **value.hashed_values()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: hashed_value(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [hashed_value(item, where) for item in value]
    if isinstance(value, Mapping):
        return {str(key): hashed_value(item, f"{where}.{key}") for key, item in value.items()}
    raise StepError(
        f"{where}: a {type(value).__name__} has no stable identity, so it cannot be part of a fingerprint. Hand over a "
        "HashedPath instead."
    )


def fingerprint(key: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON values; equal values in any order give the same hash."""
    text = json.dumps(key, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
