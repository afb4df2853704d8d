"""A manifest that someone else wrote is read with limits, and its problems are sentences."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from made_package import manifest_of
from potstill.components.packages.verify import verify_package
from potstill.core.artifacts.manifest import FileEntry, Manifest
from potstill.core.words import printable

ENTRY = FileEntry(bytes=1, sha256="0" * 64)


def write_manifest(folder: Path, files: dict[str, FileEntry], **value: Any) -> None:
    (folder / Manifest.FILE).write_text(json.dumps(manifest_of(files, **value)))


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "[]", "{}", '{"files": [1]}', '{"files": {"a": {"bytes": "x"}}}', "9" * 5000, "\xff"]
)
def test_a_manifest_that_cannot_be_read_is_one_problem(tmp_path: Path, text: str) -> None:
    (tmp_path / Manifest.FILE).write_bytes(text.encode("latin-1"))
    (problem,) = verify_package(tmp_path)
    assert "is not a manifest of potstill" in problem


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "absent", "pipe"])
def test_a_file_that_cannot_be_there_is_missing(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    write_manifest(tmp_path, files={name: ENTRY})
    assert f"{printable(name)} is missing." in verify_package(tmp_path)


def test_a_name_outside_the_folder_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, files={"../secret": ENTRY})
    assert verify_package(tmp_path) == ["../secret is not a plain file in the package's own folder."]


def test_a_name_of_two_lines_is_named_in_one(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[2Jb").touch()
    write_manifest(tmp_path, files={})
    assert verify_package(tmp_path) == ["a [2Jb is not in the manifest."]


@pytest.mark.parametrize("change", [{"license": "mit"}, {"sha256": "0" * 64}, {"more": 1}])
def test_a_manifest_that_was_changed_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    write_manifest(tmp_path, files={}, license="cc-by-nc-4.0", metrics={"exact": 0.1, "kl": 1e-9})
    assert verify_package(tmp_path) == []
    value = json.loads((tmp_path / Manifest.FILE).read_text())
    value["predicate"] |= change
    (tmp_path / Manifest.FILE).write_text(json.dumps(value))
    (problem,) = verify_package(tmp_path)
    assert problem.startswith("manifest.json has changed")
