"""Export: a checkpoint becomes a GGUF file, quantized, and its answers are compared with the checkpoint's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.core.files import move_into_place, write_json
from potstill.core.recipe import Recipe
from potstill.core.records import Row, read_generated

if TYPE_CHECKING:
    from potstill.components.chat.format import ChatFormat

__all__ = ["VERSION", "run"]

VERSION = 2


def run(recipe: Recipe, trained: Path, generated: Path, out: Path) -> None:
    """Write `NAME-QUANTIZATION.gguf` and `parity.json`.

    Parity is judged on the F16 file, where nothing but conversion can be at fault; what quantization costs is measured
    by the evaluate step on the file that ships.

    Args:
        recipe: the recipe.
        trained: directory of the train step; the student is in `student/`.
        generated: directory of the generate step, for rows to compare on.
        out: step directory.

    Raises:
        StepError: the checkpoint cannot be exported.
        ParityError: the file does not answer like the checkpoint.
    """
    from potstill.components.chat.format import load_chat
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.stages.export.parity import check_parity

    student = trained / "student"
    settings = recipe.export
    chat = load_chat(student, recipe.chat.template)
    metadata, template = _metadata(recipe), _template(chat)
    begun = time.monotonic()
    f16 = out / "f16.gguf"
    converted = convert_checkpoint(student, f16, quantization="F16", metadata=metadata, chat_template=template)
    parity = check_parity(
        f16, student, chat, _rows(recipe, generated), tolerance=settings.parity_tolerance, context=recipe.chat.context
    )
    shipped = out / f"{recipe.name}-{settings.quantization}.gguf"
    if settings.quantization == "F16":
        move_into_place(f16, shipped)
        summary = converted
    else:
        summary = convert_checkpoint(
            student, shipped, quantization=settings.quantization, metadata=metadata, chat_template=template
        )
        f16.unlink()
    write_json(
        out / "parity.json",
        {
            **parity,
            "tolerance": settings.parity_tolerance,
            "file": {
                "name": shipped.name,
                "quantization": settings.quantization,
                "bytes": summary.file_bytes,
                "bytes_f16": converted.file_bytes,
                "bits_per_weight": round(summary.bits_per_weight, 4),
                "parameters": summary.n_parameters,
                "tensor_types": summary.tensor_types,
                "notes": list(summary.notes),
            },
            "seconds": round(time.monotonic() - begun, 3),
        },
    )


def _rows(recipe: Recipe, generated: Path) -> list[Row]:
    """Rows to compare on: of the validation split where there is one."""
    limit = recipe.export.parity_rows
    return read_generated(generated, "validation", limit) or read_generated(generated, "train", limit)


def _template(chat: ChatFormat) -> str:
    """The template the student was trained with, deaf to what llama.cpp adds and the student never saw.

    llama.cpp gives every template today's date as `date_string` (Llama 3.1 prints it), and some `bos_token` also where
    the tokenizer has none. The first is made undefined again, the second empty.
    """
    unset = []
    if "date_string" in chat.template:
        unset.append("{%- set date_string = never_defined -%}")
    if "bos_token" in chat.template and chat.bos is None:
        unset.append("{%- set bos_token = '' -%}")
    return "".join(unset) + chat.template


def _metadata(recipe: Recipe) -> dict[str, str]:
    """What the file says of itself: name, licence, and the model its weights come from."""
    out = {"general.name": recipe.name}
    if recipe.package.license != "unknown":
        out["general.license"] = recipe.package.license
    base = {"teacher_layers": recipe.teacher.model, "checkpoint": recipe.student.model, "scratch": None}[
        recipe.student.init
    ]
    if base is None:
        return out
    if Path(base).is_dir():  # a folder's path says nothing to others
        return out | {"general.base_model.0.name": Path(base).name}
    organization, _, name = base.rpartition("/")
    out["general.base_model.0.name"] = name
    if organization:
        out["general.base_model.0.organization"] = organization
        out["general.base_model.0.repo_url"] = f"https://huggingface.co/{base}"
    return out
