"""The file that ships: its size, and what llama.cpp holds while it serves it, against the recipe's budgets."""

from __future__ import annotations

from typing import get_args

from potstill.components.hardware.memory import kv_bytes, memory
from potstill.components.models.recipe_models import Models
from potstill.core.artifacts.check import FileSize, ServedMemory
from potstill.core.errors import RecipeError
from potstill.core.format import format_size
from potstill.core.recipe import Quantization, Recipe

__all__ = [
    "file_size", "require_file_size", "require_served_memory", "rows_warning", "served_memory", "vocabulary_warning",
]  # fmt: skip

_MB = 1e6


def _file_bytes(models: Models, quantization: str) -> int:
    spec = models.student_spec
    return (spec.header_bytes or 0) + spec.quantized(quantization).weight_bytes


def file_size(recipe: Recipe, models: Models) -> FileSize:
    """Size of the shipped file: the weights exactly, the rest within a few hundred bytes.

    With `student.vocabulary: workload` it is an upper bound: which tokens are kept is known once rows are generated.
    """
    chosen, limit = recipe.export.quantization, recipe.target.file_mb
    spec = models.student_spec.quantized(chosen)
    return FileSize(
        quantization=chosen,
        bytes=_file_bytes(models, chosen),
        weight_bytes=spec.weight_bytes,
        bits_per_weight=round(spec.bits_per_weight, 4),
        limit_bytes=None if limit is None else int(limit * _MB),
    )


def require_file_size(recipe: Recipe, models: Models, file: FileSize) -> None:
    """Raise RecipeError for a file over target.file_mb; the message says which quantizations fit."""
    if file.limit_bytes is None or file.bytes <= file.limit_bytes or recipe.student.vocabulary == "workload":
        return
    sizes = {name: _file_bytes(models, name) for name in get_args(Quantization)}
    fitting = sorted((name for name, size in sizes.items() if size <= file.limit_bytes), key=lambda name: -sizes[name])
    named = ", ".join(f"{name} ({format_size(sizes[name])})" for name in fitting)
    advice = (
        f"These quantizations fit: {named}. Set export.quantization."
        if fitting
        else f"No quantization fits (the smallest has {format_size(min(sizes.values()))}): make the student smaller."
    )
    raise RecipeError(
        f"target.file_mb: the student's {file.quantization} file will have {format_size(file.bytes)}, more than the "
        f"{recipe.target.file_mb:g} MB allowed. {advice}"
    )


def served_memory(recipe: Recipe, models: Models, file: FileSize) -> ServedMemory:
    """Memory of llama.cpp with the shipped file and one conversation, as an estimate."""
    context, limit, spec = recipe.chat.context, recipe.target.memory_mb, models.student_spec
    return ServedMemory(
        context=context,
        bytes=memory(spec.quantized(file.quantization), context).total,
        kv_bytes=kv_bytes(spec, context),
        limit_bytes=None if limit is None else int(limit * _MB),
    )


def require_served_memory(recipe: Recipe, file: FileSize, served: ServedMemory) -> str | None:
    """A warning where the estimate is over target.memory_mb.

    Raises:
        RecipeError: file and KV cache, which are certain, are over it already.
    """
    limit = recipe.target.memory_mb
    if limit is None:
        return None
    if file.bytes + served.kv_bytes > limit * _MB and recipe.student.vocabulary == "full":
        raise RecipeError(
            f"target.memory_mb: the file ({format_size(file.bytes)}) and the KV cache of {served.context} tokens "
            f"({format_size(served.kv_bytes)}) alone need more than the {limit:g} MB allowed. Lower chat.context, or "
            "make the student smaller."
        )
    if served.bytes <= limit * _MB:
        return None
    return (
        f"target.memory_mb: llama.cpp will hold about {format_size(served.bytes)}, more than the {limit:g} MB allowed; "
        "the gate will judge what is measured."
    )


def vocabulary_warning(recipe: Recipe, models: Models) -> str | None:
    """A sentence where all sizes are upper bounds, because the vocabulary is trimmed to rows that do not exist yet."""
    if recipe.student.vocabulary == "full":
        return None
    return (
        f"student.vocabulary: sizes and memory are given for all {models.student.chat.vocab_size} tokens; the student "
        "will have fewer, and how many is known once its rows are generated. The gates will judge what is measured."
    )


def rows_warning(recipe: Recipe, models: Models) -> str | None:
    """A sentence where matrix rows that are not a multiple of 256 weights make a K-quantized file larger."""
    chosen = recipe.export.quantization
    if "_K" not in chosen:
        return None
    spec = models.student_spec.quantized(chosen)
    odd = {name: dims for name, dims in spec.tensors.items() if len(dims) > 1 and dims[-1] % 256}
    if not odd:
        return None
    rows, used = sorted({dims[-1] for dims in odd.values()}), sorted({spec.types[name] for name in odd})
    return (
        f"export.quantization: rows of {', '.join(map(str, rows))} weights are not a multiple of 256, so {len(odd)} "
        f"matrices are stored as {', '.join(used)}, and the file is larger than {chosen} usually is."
    )
