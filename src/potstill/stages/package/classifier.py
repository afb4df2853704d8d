"""Package of a classifier: the student's folder as it was judged, a model card, and a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from potstill import __version__
from potstill.components.licences.licences import LicenceVerdict, licence_verdict
from potstill.components.licences.notice import licence_notice
from potstill.components.models.names import model_name
from potstill.components.packages.entries import data_file, package_files, step_entry
from potstill.components.packages.portable import portable_recipe
from potstill.core.artifacts.manifest import ClassifierManifest, ManifestData, ManifestTeacher
from potstill.core.artifacts.metrics import ClassifierMetrics, ClassifierModelMetrics
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.files import write_text
from potstill.core.format import format_count, format_level, format_size
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierRecipe, recipe_hash
from potstill.core.steps import Done, Stage
from potstill.stages.package import markdown
from potstill.stages.package.calibration import calibration_section
from potstill.stages.package.folder import LATER, finish, link, new_package

__all__ = ["STAGE", "ClassifierPackageInputs"]

_STEPS = ("finetune", "train", "evaluate", "gate")
_VERDICTS = {
    "PASS": "This model passes all gates of its recipe.",
    "FAIL": "This model fails a gate of its recipe. The gates below say which.",
    "INCONCLUSIVE": "There are too few test rows to decide whether this model passes all gates of its recipe.",
}


@dataclass(frozen=True)
class ClassifierPackageInputs:
    """What the package says, and the files it is made of; see `PackageInputs`."""

    name: str
    recipe: dict[str, Any]
    recipe_sha256: str
    license: str
    teacher: str
    teacher_license: str
    data: dict[str, HashedPath]
    data_license: str
    licences: LicenceVerdict
    context: int
    student: HashedPath
    metrics: HashedPath
    verdict: HashedPath
    steps: dict[str, HashedPath]


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierPackageInputs:
    data = recipe.data
    files = {"train": data.train, "validation": data.validation, "test": data.test}
    return ClassifierPackageInputs(
        name=recipe.name,
        recipe=portable_recipe(recipe),
        recipe_sha256=recipe_hash(recipe),
        license=recipe.license_of("package"),
        teacher=model_name(recipe.teacher.model),
        teacher_license=recipe.license_of("teacher"),
        data={name: HashedPath.of_file(path) for name, path in files.items() if path},
        data_license=recipe.license_of("data"),
        licences=licence_verdict(recipe),
        context=data.context,
        student=done.path("train", "student"),
        metrics=done.path("evaluate", ClassifierMetrics.FILE),
        verdict=done.path("gate", Verdict.FILE),
        steps={name: done.path(name, StepRecord.FILE) for name in _STEPS if name in done},
    )


def _run(inputs: ClassifierPackageInputs, out: Path) -> None:
    with new_package(out) as folder:
        for file in sorted(inputs.student.path.iterdir()):
            link(file, folder)
        if notice := _notice(inputs):
            write_text(folder / "LICENSE", notice)
        finish(folder, _manifest(inputs, folder), lambda manifest: _card(inputs, manifest))


STAGE = Stage(name="package", reads=_STEPS, inputs=_inputs, run=_run, version=7, later=LATER)


def _notice(inputs: ClassifierPackageInputs) -> str:
    """Text of LICENSE."""
    named = {
        "This model": inputs.license,
        f"The teacher, {inputs.teacher}": inputs.teacher_license,
        "The training data": inputs.data_license,
    }
    return licence_notice(named, inputs.licences)


def _manifest(inputs: ClassifierPackageInputs, folder: Path) -> ClassifierManifest:
    """The manifest of a package, with the files that are in it so far."""
    records = {name: StepRecord.read(path.path.parent) for name, path in inputs.steps.items()}
    return ClassifierManifest(
        name=inputs.name,
        potstill=__version__,
        files=package_files(folder),
        verdict=Verdict.read(inputs.verdict.path.parent),
        license=inputs.license,
        recipe_sha256=inputs.recipe_sha256,
        recipe=inputs.recipe,
        teacher=ManifestTeacher(name=inputs.teacher, license=inputs.teacher_license),
        data=ManifestData(
            files={name: data_file(file) for name, file in inputs.data.items()}, license=inputs.data_license
        ),
        metrics=ClassifierMetrics.read(inputs.metrics.path.parent),
        steps={name: step_entry(record) for name, record in records.items()},
        versions=records["evaluate"].versions,
    )


def _card(inputs: ClassifierPackageInputs, manifest: ClassifierManifest) -> str:
    """Text of README.md."""
    front = {"license": inputs.license, "library_name": "transformers", "pipeline_tag": "text-classification"}
    metrics, verdict = manifest.metrics, manifest.verdict
    student = metrics.models.student
    says = _VERDICTS[verdict.verdict] if verdict.gates else "Its recipe sets no gates, so nothing was judged."
    opening = (
        f"# {inputs.name}\n\n**Verdict: {verdict.verdict}.** {says}\n\n"
        f"A classifier distilled from {markdown.code(inputs.teacher)} with potstill {__version__}: "
        f"{student.params:,} parameters, {format_size(student.bytes)}. Load the folder with "
        "`AutoModelForSequenceClassification` and `AutoTokenizer`."
    )
    limits = (
        f"## Limits\n\n- It was judged on {student.exact.n:,} test rows of one workload. Nothing is known about other "
        f"texts.\n- Texts are cut at {inputs.context} tokens.\n"
        "- Speed was measured on one machine, and differs on others."
    )
    limits += markdown.duties(inputs.licences.obligations)
    sections = [opening, markdown.gates_section(verdict), _measurements(metrics), calibration_section(metrics), limits]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


def _measurements(metrics: ClassifierMetrics) -> str:
    """Teacher, student and control in a table, and their speed."""
    scoped = metrics.models.student.in_scope is not None
    header = ["model", "parameters", "accuracy", *(["in scope", "out of scope"] if scoped else [])]
    rows = [_row(name, model, scoped) for name, model in metrics.models.present()]
    speed = metrics.speed
    times = (
        f"One text takes {speed.student_ms.median:.2f} ms, and {speed.teacher_ms.median:.2f} ms with the teacher "
        f"(medians, {format_count(speed.threads, 'thread')})."
    )
    table = markdown.table([*header, "KL from the teacher, nats per row"], rows)
    note = f"The intervals of rates are {format_level(metrics.confidence)} intervals."
    return "\n\n".join(text for text in ("## Measurements", table, note, metrics.leaked.sentence, times) if text)


def _row(name: str, model: ClassifierModelMetrics, scoped: bool) -> list[str]:
    rates = [model.exact, *([model.in_scope, model.out_of_scope] if scoped else [])]
    kl = f"{model.fidelity.kl_mean:.4f}" if model.fidelity else "-"
    return [name, f"{model.params:,}", *map(markdown.rate, rates), kl]
