"""The package's folder: built under a temporary name, and renamed when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from potstill.components.packages.bom import BOM, bill_of_materials
from potstill.components.packages.entries import file_entry
from potstill.core.artifacts.manifest import ClassifierManifest, Manifest
from potstill.core.artifacts.signature import Envelope
from potstill.core.files import replacing, write_json, write_text

__all__ = ["CARD", "LATER", "PACKAGE", "finish", "link", "new_package"]

PACKAGE = "package"
CARD = "README.md"
LATER = (f"{PACKAGE}/{Envelope.FILE}",)
"""What `potstill sign` adds to the finished step."""
ManifestT = TypeVar("ManifestT", Manifest, ClassifierManifest)


@contextmanager
def new_package(out: Path) -> Iterator[Path]:
    """An empty folder to build the package in; it becomes `out/package` when the block ends without an error."""
    with replacing(out / PACKAGE) as building:
        building.mkdir(parents=True)
        yield building


def link(source: Path, folder: Path) -> None:
    """Put a file into a folder: a hard link, or a copy where the file system has no hard links."""
    target = folder / source.name
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def finish(folder: Path, manifest: ManifestT, card: Callable[[ManifestT], str]) -> None:
    """Add the bill of materials, the model card, and the manifest with the entries of both."""
    write_json(folder / BOM, bill_of_materials(manifest))
    write_text(folder / CARD, card(manifest))
    added = {name: file_entry(folder / name) for name in (BOM, CARD)}
    files = dict(sorted({**manifest.files, **added}.items()))
    manifest.model_copy(update={"files": files}).write(folder)
