"""The package that is served: verified before its file is loaded, and again when one of its files changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from potstill.components.packages.verify import verify_package
from potstill.core.artifacts.manifest import Manifest
from potstill.core.errors import StepError, UsageError
from potstill.core.hashing import hash_file
from potstill.core.tools import Tool, read_tools

__all__ = ["PackageFiles", "ServedPackage", "load_package"]

_TOOLS = "tools.json"
_Seen = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class ServedPackage:
    """A package whose files are as its manifest says.

    name           the recipe's name, which requests give as `model`
    model          the GGUF file, and its SHA-256 (hex)
    quantization   type of the file's weights
    context        tokens of prompt and answer that the recipe asks for
    tools          tools that the model was trained with; empty for a model without
    """

    folder: Path
    name: str
    model: Path
    model_sha256: str
    quantization: str
    context: int
    tools: tuple[Tool, ...]


def load_package(folder: Path) -> ServedPackage:
    """Verify a package and read what serving needs.

    Raises:
        UsageError: the folder is not the package of a language model.
        StepError: a file is missing or has changed.
    """
    path = folder / Manifest.FILE
    if not path.is_file():
        raise UsageError(
            f"{folder}: this folder has no {Manifest.FILE}, so it is not a package. Give the folder `package` that a "
            "run has left."
        )
    if problems := verify_package(folder):
        raise StepError(f"{folder}: the package is not served. {' '.join(problems)}")
    manifest = Manifest.read_file(path, "give the package of a language model")
    name = next((name for name in manifest.files if name.endswith(".gguf")), None)
    if name is None:
        raise StepError(f"{folder}: the package has no GGUF file, so there is nothing to serve.")
    tools = folder / _TOOLS
    return ServedPackage(
        folder=folder,
        name=manifest.name,
        model=folder / name,
        model_sha256=hash_file(folder / name),
        quantization=manifest.student.quantization,
        context=manifest.speed.context,
        tools=read_tools(tools) if tools.is_file() else (),
    )


class PackageFiles:
    """The files of a package as they were when it was last verified.

    A change is seen by size, inode and times, in microseconds, so it is looked for with every request. The content is
    read again only after a change.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file was added, removed or written since the last call of `accept`."""
        return self._look() != self._seen

    def accept(self) -> None:
        """Take the files as they are now for the verified ones; call it before they are verified."""
        self._seen = self._look()

    def _look(self) -> _Seen:
        try:
            with os.scandir(self._folder) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError:
            return ()
        return tuple(sorted((name, s.st_size, s.st_mtime_ns ^ s.st_ctime_ns, s.st_ino) for name, s in found))
