"""Export: convert the student to a quantized GGUF file, and prove that it answers like the checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import shipped_model
from potstill.components.models.names import model_name
from potstill.core.artifacts.exported import Exported, Finished
from potstill.core.artifacts.generated import TOOLS, read_generated, rows_file
from potstill.core.errors import ParityError
from potstill.core.files import move_into_place
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Export, Recipe
from potstill.core.steps import Done, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from potstill.components.chat.format import ChatFormat
    from potstill.core.records import Row

__all__ = ["STAGE", "ExportInputs"]


PARITY_ROWS = 8
"""Number of rows whose answers are compared with the checkpoint's; prompts are compared for all rows."""
WEIGHT_TOLERANCE = 1e-6
"""Largest accepted difference between a weight as it was trained and as the file has it."""


@dataclass(frozen=True)
class ExportInputs:
    """What the exported file depends on.

    validation, train   generated rows, whose prompts file and checkpoint must make alike
    tools        the tools of rows without their own
    name         the model's name, in the file's metadata
    license      SPDX identifier in the file's metadata; None: not known
    base_model   name of the model that the student's weights come from, in the file's metadata; None: none
    seed         of the order of rows in which the file is finished; None: it is not
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
    seed: int | None


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
        seed=recipe.seed if recipe.export.finish else None,
    )


def _run(inputs: ExportInputs, out: Path) -> None:
    """Write `NAME-QUANTIZATION.gguf` and `exported.json`.

    Parity is judged on an F16 file, where only the conversion can be at fault. The evaluate stage measures what
    quantization costs. With `export.finish`, the file is made from weights that were trained through its format.
    """
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.conversion.file_template import adds_bos, file_template, spoken_tokens
    from potstill.components.conversion.file_weights import largest_difference
    from potstill.components.parity.parity import check_parity

    student, settings = inputs.student.path, inputs.settings
    chat = inputs.chat.load(student)
    held_out, train = (read_generated(file.path, inputs.tools.path) for file in (inputs.validation, inputs.train))
    rows = [*held_out, *train]
    convert = partial(
        convert_checkpoint,
        metadata=file_metadata(inputs),
        chat_template=file_template(chat),
        adds_bos=adds_bos(chat, rows),
        spoken=spoken_tokens(chat, rows),
    )
    f16 = out / "f16.gguf"
    converted = convert(student, f16, quantization="F16")
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
    finished = None
    if settings.finish:
        source = out / "finished"
        finished, values = _finish(inputs, chat, train, held_out, source)
        summary = convert(source, shipped, quantization=settings.quantization)
        finished = _as_written(finished, largest_difference(shipped, source, values))
        shutil.rmtree(source)
        f16.unlink()
    elif settings.quantization == "F16":
        move_into_place(f16, shipped)
    else:
        summary = convert(student, shipped, quantization=settings.quantization)
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
        finished=finished,
    ).write(out)


STAGE = Stage(name="export", reads=("generate", "train", "worth"), inputs=_inputs, run=_run, version=6)


def _finish(
    inputs: ExportInputs, chat: ChatFormat, train: Sequence[Row], held_out: Sequence[Row], out: Path
) -> tuple[Finished, dict[str, NDArray[np.float32]]]:
    """Train the student through the file's format; see `finish_weights`."""
    from potstill.components.training.finishing import FinishTask, finish_weights, whole_rows
    from potstill.components.training.rows import training_examples

    assert inputs.settings.finish is not None and inputs.seed is not None
    examples, unseen = (
        whole_rows(training_examples(rows, chat, inputs.chat.context, skip_longer=True)) for rows in (train, held_out)
    )
    task = FinishTask(
        checkpoint=inputs.student.path,
        quantization=inputs.settings.quantization,
        examples=examples,
        held_out=unseen,
        vocab_size=chat.vocab_size,
        pad_id=chat.eos_id,
        seed=inputs.seed,
    )
    return finish_weights(task, inputs.settings.finish, out)


def _as_written(finished: Finished, difference: float) -> Finished:
    """The record of a file whose weights differ from those in training by so much.

    Raises:
        ParityError: the file does not have the weights that were trained.
    """
    if difference > WEIGHT_TOLERANCE:
        raise ParityError(
            f"The finished file differs from the model that was trained by {difference:.3g} in a weight, more than "
            f"{WEIGHT_TOLERANCE:g}. Leave export.finish out, and report this as a bug of potstill."
        )
    return finished.model_copy(update={"weight_difference": difference})


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
