"""manifest.json: what each file of a package is, and where all of it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from potstill import __version__
from potstill.core.errors import DataError
from potstill.core.files import read_json_object
from potstill.core.hashing import hash_file
from potstill.core.recipe import Recipe, recipe_hash

__all__ = [
    "MANIFEST",
    "base_model",
    "build_manifest",
    "data_entry",
    "file_entry",
    "portable_recipe",
    "read_step",
    "teacher_name",
    "verify_package",
]

MANIFEST = "manifest.json"
_SHALLOW = 3  # parts of a folder such as /home/name: one less, and paths below it would tell the name


def read_step(path: Path) -> dict[str, Any]:
    """A step's JSON file; empty when the step has none."""
    return read_json_object(path, missing_ok=True)


def portable_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values as JSON, with no path of this machine and no password of an endpoint.

    Files and folders are told relative to the folder they all have in common; by name alone when that folder is so near
    the root that the rest would tell of the machine.
    """
    finetune = recipe.teacher.finetune
    models = (recipe.chat.template, recipe.teacher.model, recipe.student.model)
    paths = [recipe.data.prompts, recipe.data.validation, recipe.data.test, recipe.data.tools]
    paths += [finetune.rows if finetune else None, *(Path(m) for m in models if m and Path(m).is_absolute())]
    known = {str(path) for path in paths if path}
    common = Path(os.path.commonpath([str(Path(path).parent) for path in known]))
    deep = len(common.parts) >= _SHALLOW

    def made_portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: made_portable(v) for key, v in value.items()}
        if isinstance(value, str) and value in known:
            return Path(value).relative_to(common).as_posix() if deep else Path(value).name
        return value

    values: dict[str, Any] = made_portable(recipe.model_dump(mode="json"))
    values["teacher"]["base_url"] = _without_login(recipe.teacher.base_url)
    return values


def _without_login(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _model_name(model: str) -> str:
    """A hub id as it is, a folder's name without its path."""
    return Path(model).name if Path(model).is_absolute() else model


def teacher_name(recipe: Recipe) -> str:
    """What people call the teacher: hub id or folder's name; named after the run that trained it from nothing."""
    finetune = recipe.teacher.finetune
    return f"{recipe.name}-teacher" if finetune and finetune.shape else _model_name(recipe.teacher.model)


def base_model(recipe: Recipe) -> str:
    """The model the student descends from: the one its weights come from, else the one it learnt from."""
    return _model_name(recipe.student.model) if recipe.student.model else teacher_name(recipe)


def build_manifest(recipe: Recipe, steps: Mapping[str, Path], package: Path) -> dict[str, Any]:
    """The manifest of a package, with the files that are in it so far.

    Args:
        recipe: the recipe.
        steps: directory of each finished step.
        package: the package's folder.
    """
    stamps = {name: read_step(folder / "step.json") for name, folder in steps.items()}
    generated = read_step(steps["generate"] / "summary.json")
    trained = read_step(steps["train"] / "summary.json")
    metrics = read_step(steps["evaluate"] / "metrics.json")
    metrics.pop("regressions", None)
    return {
        "format": 1,
        "name": recipe.name,
        "potstill": __version__,
        "files": {path.name: file_entry(path) for path in sorted(package.iterdir())},
        "verdict": read_step(steps["gate"] / "verdict.json"),
        "license": recipe.package.license,
        "recipe_sha256": recipe_hash(recipe),
        "recipe": portable_recipe(recipe),
        "teacher": _teacher(recipe, generated.get("teacher", {})),
        "student": {
            "init": recipe.student.init,
            "base_model": base_model(recipe),
            "params": trained.get("params_student"),
            "quantization": recipe.export.quantization,
        },
        "data": _data(recipe),
        "answers": generated.get("splits", {}),
        "parity": {k: v for k, v in read_step(steps["export"] / "parity.json").items() if k != "file"},
        "metrics": metrics,
        "steps": {
            name: {key: stamp.get(key) for key in ("fingerprint", "finished", "seconds", "git_commit")}
            for name, stamp in stamps.items()
            if stamp
        },
        "versions": stamps.get("evaluate", {}).get("versions", {}),
    }


def _teacher(recipe: Recipe, identity: dict[str, Any]) -> dict[str, Any]:
    finetune = recipe.teacher.finetune
    out = {"name": teacher_name(recipe), **identity, "license": recipe.teacher.license}
    out["model"] = _model_name(str(identity.get("model", recipe.teacher.model)))
    if "endpoint" in out:
        out["endpoint"] = _without_login(out["endpoint"])
    out["finetuned_on"] = data_entry(finetune.rows) if finetune else None
    return out


def _data(recipe: Recipe) -> dict[str, Any]:
    data = recipe.data
    files = {"prompts": data.prompts, "validation": data.validation, "test": data.test, "tools": data.tools}
    return {name: data_entry(path) for name, path in files.items() if path} | {"license": data.license}


def file_entry(path: Path) -> dict[str, Any]:
    """A file's hash and size, as the manifest lists them."""
    return {"sha256": hash_file(path), "bytes": path.stat().st_size}


def data_entry(path: Path) -> dict[str, Any]:
    """Name, hash and size of a data file; for JSONL also its rows."""
    out = {"file": path.name, **file_entry(path)}
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            out["rows"] = sum(1 for line in lines if line.strip())
    return out


def verify_package(folder: Path) -> list[str]:
    """What is wrong with a package by its own manifest, one sentence each; empty when nothing is.

    Every file named there must be there with its hash and size, and no other may be. A manifest says that a package is
    whole, not who made it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return [f"{MANIFEST} is not there, so nothing can be checked."]
    try:
        files = read_json_object(path)["files"]
        expected = {str(name): (str(v["sha256"]), int(v["bytes"])) for name, v in files.items()}
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST} is not a manifest of potstill: it has no readable list of files."]
    problems = [_problem(folder, name, *known) for name, known in expected.items()]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    strangers = sorted(present - expected.keys() - {MANIFEST})
    return [p for p in problems if p] + [f"{name} is not in the manifest." for name in strangers]


def _problem(folder: Path, name: str, sha256: str, size: int) -> str | None:
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        return f"{name} is not a plain file of the package's own folder."
    if not path.is_file():
        return f"{name} is missing."
    if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes, the manifest says {size}."
    found = hash_file(path)
    return None if found == sha256 else f"{name} has changed: its SHA-256 is {found}, the manifest says {sha256}."
