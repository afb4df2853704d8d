"""Package: the folder that ships, with the GGUF, a Modelfile, a model card, and a manifest of where all came from.

A model whose gates failed is packaged as well: its card and manifest say so first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill import __version__
from potstill.components.chat.format import ChatFormat, ChatSettings
from potstill.components.licences.licences import LicenceVerdict, licence_verdict
from potstill.components.licences.notice import licence_notice
from potstill.components.models.names import base_model_name, model_name, teacher_name
from potstill.components.packages.entries import data_file, package_files, step_entry
from potstill.components.packages.portable import portable_recipe
from potstill.components.runtimes import Sampling
from potstill.core.artifacts.answers import answers_file
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.generated import Generated, TeacherIdentity
from potstill.core.artifacts.manifest import Manifest, ManifestData, ManifestStudent, ManifestTeacher
from potstill.core.artifacts.metrics import Metrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.files import write_text
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Recipe, recipe_hash
from potstill.core.steps import Done, Stage
from potstill.stages.package.folder import LATER, finish, link, new_package

if TYPE_CHECKING:
    from potstill.stages.package.example import Example

__all__ = ["STAGE", "Licenses", "PackageInputs"]

_STEPS = ("finetune", "generate", "targets", "train", "worth", "export", "speed", "evaluate", "gate")


@dataclass(frozen=True)
class Licenses:
    """SPDX identifiers by the recipe; `unknown` for one that it does not name. `verdict` is on all of them."""

    model: str
    teacher: str
    data: str
    verdict: LicenceVerdict


@dataclass(frozen=True)
class PackageInputs:
    """What the package says, and the files it is made of.

    recipe, recipe_sha256   the recipe's values, without paths of this machine, and their hash
    teacher, base_model     names of the teacher, and of the model that the student descends from
    objective               name of the objective of the model that ships
    system                  system message of the Modelfile
    data                    data files by the recipe's key
    student                 the checkpoint, for its tokenizer and chat template
    gguf                    the file that ships
    answers                 the file's answers to the test rows
    steps                   step.json of each finished step by stage
    """

    name: str
    recipe: dict[str, Any]
    recipe_sha256: str
    licenses: Licenses
    teacher: str
    base_model: str
    student_init: Literal["teacher_layers", "scratch", "checkpoint"]
    objective: str
    chat: ChatSettings
    sampling: Sampling
    system: str | None
    data: dict[str, HashedPath]
    finetune_rows: HashedPath | None
    student: HashedPath
    gguf: HashedPath
    answers: HashedPath
    generated: HashedPath
    exported: HashedPath
    speed: HashedPath
    metrics: HashedPath
    verdict: HashedPath
    steps: dict[str, HashedPath]


def _inputs(recipe: Recipe, done: Done) -> PackageInputs:
    data, answers, finetune = recipe.data, recipe.generate, recipe.teacher.finetune
    files = {"prompts": data.prompts, "validation": data.validation, "test": data.test, "tools": data.tools}
    return PackageInputs(
        name=recipe.name,
        recipe=portable_recipe(recipe),
        recipe_sha256=recipe_hash(recipe),
        licenses=Licenses(
            model=recipe.license_of("package"),
            teacher=recipe.license_of("teacher"),
            data=recipe.license_of("data"),
            verdict=licence_verdict(recipe),
        ),
        teacher=teacher_name(recipe),
        base_model=base_model_name(recipe),
        student_init=recipe.student.init,
        objective=recipe.shipped_objective,
        chat=ChatSettings.of(recipe.chat),
        sampling=Sampling(answers.max_new_tokens, answers.temperature, answers.top_p, recipe.seed),
        system=recipe.package.system,
        data={name: HashedPath.of_file(path) for name, path in files.items() if path},
        finetune_rows=HashedPath.of_file(finetune.rows) if finetune else None,
        student=done.path("train", "student"),
        gguf=done.path("export", done.read("export", Exported).file),
        answers=done.path("evaluate", answers_file("gguf")),
        generated=done.path("generate", Generated.FILE),
        exported=done.path("export", Exported.FILE),
        speed=done.path("speed", MeasuredSpeed.FILE),
        metrics=done.path("evaluate", Metrics.FILE),
        verdict=done.path("gate", Verdict.FILE),
        steps={name: done.path(name, StepRecord.FILE) for name in _STEPS if name in done},
    )


def _run(inputs: PackageInputs, out: Path) -> None:
    from potstill.stages.package.card import write_card
    from potstill.stages.package.ollama import write_modelfile
    from potstill.stages.package.workload import read_workload

    notes, workload = Exported.read(inputs.exported.path.parent).notes, read_workload(inputs)
    chat = inputs.chat.load(inputs.student.path)
    notice = _notice(inputs)
    with new_package(out) as folder:
        link(inputs.gguf.path, folder)
        if notice:
            write_text(folder / "LICENSE", notice)
        write_text(folder / "Modelfile", write_modelfile(inputs, chat, notice, workload, notes))
        example = _example(inputs, chat, folder)
        finish(folder, _manifest(inputs, folder), lambda manifest: write_card(inputs, manifest, example))


STAGE = Stage(name="package", reads=_STEPS, inputs=_inputs, run=_run, version=10, later=LATER)


def _example(inputs: PackageInputs, chat: ChatFormat, folder: Path) -> Example | None:
    """The request of the card, asked of the packaged file, with its tools in tools.json; None for continued text."""
    if inputs.chat.template == "plain":
        return None
    from potstill.stages.package.example import TOOLS, find_example, tools_text

    example = find_example(inputs, chat, folder / inputs.gguf.path.name)
    if example.row.tools:
        write_text(folder / TOOLS, tools_text(example.row))
    return example


def _manifest(inputs: PackageInputs, folder: Path) -> Manifest:
    """The manifest of a package, with the files that are in it so far."""
    generated = Generated.read(inputs.generated.path.parent)
    exported = Exported.read(inputs.exported.path.parent)
    metrics = Metrics.read(inputs.metrics.path.parent)
    records = {name: StepRecord.read(path.path.parent) for name, path in inputs.steps.items()}
    finetune_rows = inputs.finetune_rows
    return Manifest(
        name=inputs.name,
        potstill=__version__,
        files=package_files(folder),
        verdict=Verdict.read(inputs.verdict.path.parent),
        license=inputs.licenses.model,
        recipe_sha256=inputs.recipe_sha256,
        recipe=inputs.recipe,
        teacher=ManifestTeacher(
            name=inputs.teacher,
            license=inputs.licenses.teacher,
            identity=_portable_identity(generated.teacher),
            finetuned_on=data_file(finetune_rows) if finetune_rows else None,
        ),
        student=ManifestStudent(
            init=inputs.student_init,
            base_model=inputs.base_model,
            params=exported.parameters,
            quantization=exported.quantization,
        ),
        data=ManifestData(
            files={name: data_file(file) for name, file in inputs.data.items()}, license=inputs.licenses.data
        ),
        answers=generated.splits,
        parity=exported.parity,
        notes=exported.notes,
        finished=exported.finished,
        speed=MeasuredSpeed.read(inputs.speed.path.parent).at(metrics.confidence),
        metrics=metrics.model_copy(update={"regressions": ()}),
        steps={name: step_entry(record) for name, record in records.items()},
        versions=records["evaluate"].versions,
    )


def _portable_identity(teacher: TeacherIdentity) -> TeacherIdentity:
    return teacher.model_copy(update={"model": model_name(teacher.model)})


def _notice(inputs: PackageInputs) -> str:
    """Text of LICENSE."""
    licenses = inputs.licenses
    named = {
        "This model": licenses.model,
        f"The teacher, {inputs.teacher}": licenses.teacher,
        "The training data": licenses.data,
    }
    return licence_notice(named, licenses.verdict)
