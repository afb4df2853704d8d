"""The package of a classifier: the student's folder as it was judged, a model card, and a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill import __version__
from potstill.components.packages.manifest import data_entry, file_entry, read_step
from potstill.core.recipe import ClassifierRecipe, recipe_hash
from potstill.stages.package import words

__all__ = ["build_manifest", "write_card"]

_VERDICTS = {
    "PASS": "All gates of its recipe hold for these very files.",
    "FAIL": "It does not do what its recipe asks of it. The gates below say where.",
    "INCONCLUSIVE": "The test rows at hand cannot tell whether it does all that its recipe asks.",
}


def build_manifest(recipe: ClassifierRecipe, steps: Mapping[str, Path], package: Path) -> dict[str, Any]:
    """What each file of the package is, and where all of it came from; with the files that are in it so far."""
    stamps = {name: read_step(folder / "step.json") for name, folder in steps.items()}
    data = recipe.data
    rows = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "format": 1,
        "task": recipe.task,
        "name": recipe.name,
        "potstill": __version__,
        "files": {path.name: file_entry(path) for path in sorted(package.iterdir())},
        "verdict": read_step(steps["gate"] / "verdict.json"),
        "license": recipe.student.license,
        "recipe_sha256": recipe_hash(recipe),
        "recipe": _portable(recipe.model_dump(mode="json")),
        "teacher": {"name": _portable(recipe.teacher.model), "license": recipe.teacher.license},
        "data": {name: data_entry(path) for name, path in rows.items() if path} | {"license": data.license},
        "metrics": read_step(steps["evaluate"] / "metrics.json"),
        "steps": {
            name: {key: stamp.get(key) for key in ("fingerprint", "finished", "seconds", "git_commit")}
            for name, stamp in stamps.items()
        },
        "versions": stamps["evaluate"]["versions"],
    }


def _portable(value: Any) -> Any:
    """Values with no path of this machine: files and folders by their names alone."""
    if isinstance(value, dict):
        return {key: _portable(v) for key, v in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def write_card(recipe: ClassifierRecipe, manifest: dict[str, Any]) -> str:
    """Text of the card, README.md; `manifest` as `build_manifest` gives it."""
    front = {"license": recipe.student.license, "library_name": "transformers", "pipeline_tag": "text-classification"}
    student, verdict = manifest["metrics"]["models"]["student"], manifest["verdict"]
    says = _VERDICTS[verdict["verdict"]] if verdict["gates"] else "Its recipe sets no gates, so nothing was judged."
    opening = (
        f"# {recipe.name}\n\n**Verdict: {verdict['verdict']}.** {says}\n\n"
        f"A classifier distilled from {words.code(manifest['teacher']['name'])} with potstill {__version__}: "
        f"{student['params']:,} parameters, {words.size(student['bytes'])}. Load the folder with "
        "`AutoModelForSequenceClassification` and `AutoTokenizer`."
    )
    limits = (
        f"## Limits\n\n- It was judged on {student['exact']['n']:,} test rows of one workload. What it does with "
        f"anything else is not known.\n- A text is cut at {recipe.data.context} tokens.\n"
        "- Speed is that of the machine that measured it; yours will differ."
    )
    sections = [opening, words.gates(verdict), _models(manifest["metrics"]), limits]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


def _models(metrics: dict[str, Any]) -> str:
    """Teacher, student and control, in a table."""
    shown = {"exact": "accuracy", "in_scope": "in scope", "out_of_scope": "out of scope"}
    kinds = [kind for kind in shown if metrics["models"]["student"][kind]]
    rows = [
        (name, f"{entry['params']:,}", *(words.rate(entry[kind]) for kind in kinds), _kl(entry["fidelity"]))
        for name, entry in metrics["models"].items()
    ]
    header = ("model", "parameters", *(shown[kind] for kind in kinds), "KL to the teacher, nats a row")
    speed = metrics["speed"]
    times = (
        f"One text takes {speed['student_ms']['median']:.2f} ms, the teacher {speed['teacher_ms']['median']:.2f} ms "
        f"(medians, {speed['threads']} threads)."
    )
    return f"## What was measured\n\n{words.table(header, rows)}\n\n{times}"


def _kl(fidelity: dict[str, float] | None) -> str:
    return f"{fidelity['kl_mean']:.4f}" if fidelity else "-"
