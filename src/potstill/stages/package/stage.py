"""Package: the folder that ships. The GGUF, a Modelfile, a model card, and a manifest of what it is all made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.components.packages.manifest import MANIFEST, build_manifest, file_entry, teacher_name, verify_package
from potstill.core.errors import StepError
from potstill.core.files import move_into_place, write_json, write_text
from potstill.core.recipe import ClassifierRecipe, Recipe

__all__ = ["VERSION", "run", "run_classifier", "verify_package"]

VERSION = 1


def run(recipe: Recipe, steps: Mapping[str, Path], out: Path) -> None:
    """Write `out/package/`, whole or not at all.

    A file whose gates failed is packaged as well: its card and manifest say so first.

    Args:
        recipe: the recipe.
        steps: directories of the finished steps: generate, train, export, evaluate, gate; finetune where there is one.
        out: step directory.

    Raises:
        StepError: the export step's directory holds no GGUF.
        RecipeError: `package.system` or a licence's name cannot stand in a Modelfile.
    """
    from potstill.components.chat.format import load_chat
    from potstill.stages.package.card import write_card
    from potstill.stages.package.ollama import write_modelfile

    shipped = next(iter(sorted(steps["export"].glob("*.gguf"))), None)
    if shipped is None:
        raise StepError(f"{steps['export']}: there is no GGUF to package. Delete this directory to export again.")
    chat = load_chat(steps["train"] / "student", recipe.chat.template)
    building = _new_folder(out)
    _link(shipped, building / shipped.name)
    notice = _notice(recipe)
    if notice:
        write_text(building / "LICENSE", notice)
    write_text(building / "Modelfile", write_modelfile(recipe, shipped, chat, notice))
    manifest = build_manifest(recipe, steps, building)
    card = write_card(recipe, manifest, shipped.name, has_chat=recipe.chat.template != "plain")
    _finish(building, manifest, card, out)


def run_classifier(recipe: ClassifierRecipe, steps: Mapping[str, Path], out: Path) -> None:
    """Write `out/package/`, whole or not at all: the student's files as they were judged, model card and manifest.

    Args:
        recipe: the recipe.
        steps: directories of the finished steps: train, evaluate, gate; finetune where there is one.
        out: step directory.
    """
    from potstill.stages.package import classifier

    building = _new_folder(out)
    for file in sorted((steps["train"] / "student").iterdir()):
        _link(file, building / file.name)
    manifest = classifier.build_manifest(recipe, steps, building)
    _finish(building, manifest, classifier.write_card(recipe, manifest), out)


def _new_folder(out: Path) -> Path:
    building = out / "package.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    return building


def _finish(building: Path, manifest: dict[str, Any], text: str, out: Path) -> None:
    """Add the card, its entry and the manifest, and put the folder in its place."""
    card = building / "README.md"
    write_text(card, text)
    manifest["files"] = dict(sorted({**manifest["files"], card.name: file_entry(card)}.items()))
    write_json(building / MANIFEST, manifest)
    move_into_place(building, out / "package")


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _notice(recipe: Recipe) -> str:
    """What the recipe says of licences; empty when it says nothing."""
    named = {
        "This model": recipe.package.license,
        f"The teacher, {teacher_name(recipe)}": recipe.teacher.license,
        "The training data": recipe.data.license,
    }
    known = [f"{what}: {license}" for what, license in named.items() if license != "unknown"]
    return "\n".join(["Licences, by their SPDX names, as the recipe gives them.", "", *known, ""]) if known else ""
