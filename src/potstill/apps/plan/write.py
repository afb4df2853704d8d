"""Puts a student into a recipe's file, whole or not at all; the text of all other sections stays as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill.core.errors import RecipeError, UsageError
from potstill.core.files import replacing
from potstill.core.recipe import load_recipe

__all__ = ["write_student"]


def write_student(path: Path, student: Mapping[str, Any], quantization: str) -> None:
    """Put a student and its quantization into a recipe.

    Args:
        path: the recipe.
        student: keys of its `student` section, and the `license` of a known model.
        quantization: for `export.quantization`.

    Raises:
        RecipeError: the recipe would not be valid, or it is not clear where its sections begin and end.
        UsageError: the file or its folder cannot be written to.
    """
    file = path.resolve()
    before = file.read_bytes().decode("utf-8")
    old = yaml.safe_load(before)
    was = old.get("student") or {}
    # how layers are chosen holds for another number of layers too
    same = was.get("init", "teacher_layers") == student["init"] == "teacher_layers"
    kept = {"layer_choice": was["layer_choice"]} if same and "layer_choice" in was else {}
    section, licenses = {**student, **kept}, dict(old.get("licenses") or {})
    new: dict[str, Any] = {
        "student": section,
        "export": {**(old.get("export") or {}), "quantization": quantization},
    }
    licenses.pop("student", None)
    if "license" in section:
        licenses["student"] = section.pop("license")
    if licenses != (old.get("licenses") or {}):
        new["licenses"] = licenses
    text = _rewritten(before, new, path)
    if not file.stat().st_mode & 0o222 or not os.access(file, os.W_OK):
        raise UsageError(f"--write: {path} is read-only, and was left as it is. Make it writable, or copy the recipe.")
    try:
        with replacing(file) as draft:  # in the recipe's folder, because its paths are relative to it
            draft.write_bytes(text.encode("utf-8"))
            _require_values(draft, path, {**old, **new})
            shutil.copymode(file, draft)
    except OSError as error:
        raise UsageError(
            f"--write: {path} cannot be written ({error.strerror or error}), and was left as it is. Make its folder "
            "writable, or copy the recipe."
        ) from None


def _require_values(draft: Path, path: Path, values: Mapping[str, Any]) -> None:
    """Raise RecipeError unless a draft is a valid recipe with exactly these values."""
    try:
        load_recipe(draft)
    except UsageError as error:
        message = str(error).replace(str(draft), str(path))
        raise RecipeError(
            f"--write: with this student the recipe is not valid, and was left as it is. {message}"
        ) from None
    if yaml.safe_load(draft.read_text(encoding="utf-8")) != dict(values):
        raise RecipeError(_unclear(path, "student"))


def _unclear(path: Path, name: str) -> str:
    return (
        f"--write: {path}: it is not clear where section {name} begins and ends, so the recipe was left as it is. "
        "Write each section once, from the first column on, with one key per line and without anchors; or copy the "
        "student into the recipe by hand."
    )


def _rewritten(text: str, sections: Mapping[str, Mapping[str, Any]], path: Path) -> str:
    """The YAML text with top-level sections replaced, or added at its end.

    Raises:
        RecipeError: it is not clear where a section is.
    """
    root, newline = yaml.compose(text), "\r\n" if "\r\n" in text else "\n"
    edits = []
    for name, values in sections.items():
        start, stop = _lines_of(root, name, text, path)
        written = yaml.safe_dump({name: dict(values)}, sort_keys=False).replace("\n", newline)
        apart = newline if start == len(text) else ""
        if apart and not text.endswith("\n"):
            apart += newline
        edits.append((start, stop, apart + written))
    for start, stop, written in sorted(edits, reverse=True):
        text = text[:start] + written + text[stop:]
    return text


def _lines_of(root: yaml.Node | None, name: str, text: str, path: Path) -> tuple[int, int]:
    """Where a section's lines begin and end; the end of the text twice for a section that is not there.

    Raises:
        RecipeError: that is not clear.
    """
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise RecipeError(_unclear(path, name))
    pairs = [(key, value) for key, value in root.value if key.value == name]
    if not pairs:
        return len(text), len(text)
    (key, value), *others = pairs
    end, marked = _end(value), text.startswith(("&", "!"), value.start_mark.index)
    # the node of an alias is where its anchor is, before the key
    if others or marked or key.start_mark.column or end < key.end_mark.index:
        raise RecipeError(_unclear(path, name))
    stop = text.find("\n", end)
    return key.start_mark.index, len(text) if stop < 0 else stop + 1


def _end(node: yaml.Node) -> int:
    """Where a value ends, without the comments that YAML counts as part of a block; -1 for block text."""
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return -1
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
