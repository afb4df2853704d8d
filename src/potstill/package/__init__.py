"""Package: the folder that ships. The GGUF, a Modelfile, a model card, and a manifest of what it is all made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from potstill.errors import StepError
from potstill.package.manifest import MANIFEST, build_manifest, file_entry, teacher_name, verify_package
from potstill.recipe import Recipe
from potstill.records import write_json

__all__ = ["VERSION", "run", "verify_package"]

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
    from potstill.chat import load_chat
    from potstill.package.card import write_card
    from potstill.package.ollama import write_modelfile

    shipped = next(iter(sorted(steps["export"].glob("*.gguf"))), None)
    if shipped is None:
        raise StepError(f"{steps['export']}: there is no GGUF to package. Delete this directory to export again.")
    chat = load_chat(steps["train"] / "student", recipe.chat.template)
    building = out / "package.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _link(shipped, building / shipped.name)
    notice = _notice(recipe)
    if notice:
        (building / "LICENSE").write_text(notice, encoding="utf-8")
    (building / "Modelfile").write_text(write_modelfile(recipe, shipped, chat, notice), encoding="utf-8")
    manifest = build_manifest(recipe, steps, building)
    card = building / "README.md"
    card.write_text(
        write_card(recipe, manifest, shipped.name, has_chat=recipe.chat.template != "plain"), encoding="utf-8"
    )
    manifest["files"] = dict(sorted({**manifest["files"], card.name: file_entry(card)}.items()))
    write_json(building / MANIFEST, manifest)
    final = out / "package"
    shutil.rmtree(final, ignore_errors=True)
    building.rename(final)


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
