"""Export: convert the student to a quantized GGUF file, and prove that it answers like the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import shipped_model
from potstill.components.models.names import model_name
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.generated import TOOLS, read_generated, rows_file
from potstill.core.files import move_into_place
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Export, Recipe
from potstill.core.steps import Done, Stage

__all__ = ["STAGE", "ExportInputs"]


PARITY_ROWS = 8
"""Number of rows whose answers are compared with the checkpoint's; prompts are compared for all rows."""


@dataclass(frozen=True)
class ExportInputs:
    """What the exported file depends on.

    validation, train   generated rows, whose prompts file and checkpoint must make alike
    tools        the tools of rows without their own
    name         the model's name, in the file's metadata
    license      SPDX identifier in the file's metadata; None: not known
    base_model   name of the model that the student's weights come from, in the file's metadata; None: none
    """

    student: HashedPath
    validation: HashedPath
    train: HashedPath
    tools: HashedPath
    chat: ChatSettings
    settings: Export
    name: str
    license: str | None
    base_model: str | None


def _inputs(recipe: Recipe, done: Done) -> ExportInputs:
    base = {"teacher_layers": recipe.teacher.model, "checkpoint": recipe.student.model, "scratch": None}
    base_model = base[recipe.student.init]
    return ExportInputs(
        student=shipped_model(recipe, done),
        validation=done.path("generate", rows_file("validation")),
        train=done.path("generate", rows_file("train")),
        tools=done.path("generate", TOOLS),
        chat=ChatSettings.of(recipe.chat),
        settings=recipe.export,
        name=recipe.name,
        license=None if recipe.license_of("package") == "unknown" else recipe.license_of("package"),
        base_model=model_name(base_model) if base_model else None,
    )


def _run(inputs: ExportInputs, out: Path) -> None:
    """Write `NAME-QUANTIZATION.gguf` and `exported.json`.

    Parity is judged on an F16 file, where only the conversion can be at fault. The evaluate stage measures what
    quantization costs.
    """
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.conversion.file_template import adds_bos, file_template, spoken_tokens
    from potstill.components.parity.parity import check_parity

    student, settings = inputs.student.path, inputs.settings
    chat = inputs.chat.load(student)
    rows = [r for file in (inputs.validation, inputs.train) for r in read_generated(file.path, inputs.tools.path)]
    convert = partial(
        convert_checkpoint,
        student,
        metadata=file_metadata(inputs),
        chat_template=file_template(chat),
        adds_bos=adds_bos(chat, rows),
        spoken=spoken_tokens(chat, rows),
    )
    f16 = out / "f16.gguf"
    converted = convert(f16, quantization="F16")
    parity = check_parity(
        f16,
        student,
        chat,
        rows,
        tolerance=settings.parity_tolerance,
        context=inputs.chat.context,
        read_closely=PARITY_ROWS,
    )
    shipped, summary = out / f"{inputs.name}-{settings.quantization}.gguf", converted
    if settings.quantization == "F16":
        move_into_place(f16, shipped)
    else:
        summary = convert(shipped, quantization=settings.quantization)
        f16.unlink()
    Exported(
        file=shipped.name,
        quantization=settings.quantization,
        bytes=summary.file_bytes,
        bytes_f16=converted.file_bytes,
        bits_per_weight=round(summary.bits_per_weight, 4),
        parameters=summary.n_parameters,
        tensor_types=summary.tensor_types,
        notes=summary.notes,
        parity=parity,
    ).write(out)


STAGE = Stage(name="export", reads=("generate", "train", "worth"), inputs=_inputs, run=_run, version=5)


def file_metadata(inputs: ExportInputs) -> dict[str, str]:
    """The file's general metadata: name, licence, and the model that its weights come from."""
    out = {"general.name": inputs.name}
    if inputs.license:
        out["general.license"] = inputs.license
    if inputs.base_model:
        organization, _, name = inputs.base_model.rpartition("/")
        out["general.base_model.0.name"] = name
        if organization:
            out["general.base_model.0.organization"] = organization
            out["general.base_model.0.repo_url"] = f"https://huggingface.co/{inputs.base_model}"
    return out
