"""What a run needs - disk, memory, and the device's budgets - against what there is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from potstill.components.hardware.memory import kv_bytes, memory
from potstill.components.hardware.probe import physical_memory
from potstill.components.models.recipe_models import Model, Models
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing.training_memory import checkpoint_bytes, training_memory_bytes
from potstill.components.targets.meta import expected_bytes
from potstill.core.errors import RecipeError
from potstill.core.format import format_size
from potstill.core.recipe import Quantization, Recipe, Schedule
from potstill.core.records import Row

__all__ = [
    "Disk",
    "File",
    "Memory",
    "RunMemory",
    "check_disk",
    "check_file",
    "check_memory",
    "check_run_memory",
    "odd_rows_warning",
    "teacher_weight_bytes",
    "vocabulary_warning",
]

_MB = 1e6
_ROW_BYTES = 1000
"""Provenance of a generated row, and its line in the journal."""
_TOKEN_BYTES = 4
_SAID_BYTES = 8
"""Of one likely token that an endpoint names, packed."""


class File(BaseModel):
    """The file that will ship; `limit_bytes` is target.file_mb."""

    quantization: str
    bytes: int
    weight_bytes: int
    bits_per_weight: float
    limit_bytes: int | None


class RunMemory(BaseModel):
    """The shipped file in llama.cpp with one slot; `bytes` hold `kv_bytes` too; `limit_bytes` is target.memory_mb."""

    context: int
    bytes: int
    kv_bytes: int
    limit_bytes: int | None


class Disk(BaseModel):
    """Bytes by stage that stay, the most that is there at any time, and what is free under the runs folder."""

    stays: dict[str, int]
    needed: int
    free: int


class Memory(BaseModel):
    """What the hungriest stage holds, in parts, against this machine's memory; None where it does not tell."""

    stage: str
    parts: dict[str, int]
    needed: int
    physical: int | None


def check_file(recipe: Recipe, models: Models) -> File:
    """Size of the shipped file: weights exactly, the rest within some hundred bytes.

    With `student.vocabulary: workload` it is the most it can be: what is kept is known once the rows are generated.

    Raises:
        RecipeError: it is over target.file_mb, and will be; the message says which quantizations are not.
    """
    chosen = recipe.export.quantization
    spec = models.student_spec
    weights = {name: spec.quantized(name).weight_bytes for name in get_args(Quantization)}
    sizes = {name: (spec.header_bytes or 0) + size for name, size in weights.items()}
    limit = None if recipe.target.file_mb is None else int(recipe.target.file_mb * _MB)
    if limit is not None and sizes[chosen] > limit and recipe.student.vocabulary == "full":
        fitting = sorted((name for name, size in sizes.items() if size <= limit), key=lambda name: -sizes[name])
        named = ", ".join(f"{name} ({format_size(sizes[name])})" for name in fitting)
        advice = (
            f"Of the quantizations, {named} fit: set export.quantization."
            if fitting
            else f"No quantization fits (the smallest is {format_size(min(sizes.values()))}): make the student smaller."
        )
        raise RecipeError(
            f"target.file_mb: the student's {chosen} file will have {format_size(sizes[chosen])}, more than the "
            f"{recipe.target.file_mb:g} MB allowed. {advice}"
        )
    return File(
        quantization=chosen,
        bytes=sizes[chosen],
        weight_bytes=weights[chosen],
        bits_per_weight=round(8 * weights[chosen] / spec.parameters, 4),
        limit_bytes=limit,
    )


def vocabulary_warning(recipe: Recipe, models: Models) -> str | None:
    """A sentence where all sizes are upper bounds, for want of the rows that will say which tokens are kept."""
    if recipe.student.vocabulary == "full":
        return None
    return (
        f"student.vocabulary: sizes and memory are given for all {models.student.chat.vocab_size} tokens; the student "
        "will have fewer, by how many is known once its rows are generated. The gates will judge what is measured."
    )


def odd_rows_warning(recipe: Recipe, models: Models) -> str | None:
    """A sentence where rows that are no multiple of 256 cost a K-quantization its bits."""
    chosen = recipe.export.quantization
    if "_K" not in chosen:
        return None
    spec = models.student_spec.quantized(chosen)
    odd = {n: d for n, d in spec.tensors.items() if len(d) > 1 and d[-1] % 256}
    if not odd:
        return None
    rows, used = sorted({d[-1] for d in odd.values()}), sorted({spec.types[n] for n in odd})
    return (
        f"export.quantization: rows of {', '.join(map(str, rows))} weights are no multiple of 256, so {len(odd)} "
        f"matrices are stored as {', '.join(used)}, and the file is larger than {chosen} usually is."
    )


def check_run_memory(recipe: Recipe, models: Models, file: File, warnings: list[str]) -> RunMemory:
    """Memory of the shipped file in its runtime, an estimate; over target.memory_mb it is a warning.

    Raises:
        RecipeError: file and KV cache, which are certain, are over it already.
    """
    context, target = recipe.chat.context, recipe.target.memory_mb
    spec = models.student_spec
    kv = kv_bytes(spec, context)
    needed = memory(spec.quantized(file.quantization), context).total
    if target is not None and file.bytes + kv > target * _MB and recipe.student.vocabulary == "full":
        raise RecipeError(
            f"target.memory_mb: the file ({format_size(file.bytes)}) and the KV cache of {context} tokens "
            f"({format_size(kv)}) alone are more than the {target:g} MB allowed. Lower chat.context, or make the "
            "student smaller."
        )
    if target is not None and needed > target * _MB:
        warnings.append(
            f"target.memory_mb: llama.cpp will hold about {format_size(needed)}, more than the {target:g} MB allowed; "
            "the gate will judge what is measured."
        )
    limit = None if target is None else int(target * _MB)
    return RunMemory(context=context, bytes=needed, kv_bytes=kv, limit_bytes=limit)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def _row_bytes(recipe: Recipe, splits: Mapping[str, Sequence[Row]]) -> int:
    """Bytes of the generated rows and the journal: each row is written with its tools."""
    data = recipe.data
    files = sum(p.stat().st_size for p in (data.prompts, data.validation) if p)
    tools = data.tools.stat().st_size if data.tools else 0
    count = len(splits["prompts"]) + len(splits.get("validation", ()))
    token = 2 * (_TOKEN_BYTES + _SAID_BYTES * (recipe.requested_logprobs or 0))
    return files + count * (tools + token * recipe.generate.max_new_tokens + _ROW_BYTES)


def _target_bytes(recipe: Recipe, models: Models, rows: int) -> int:
    """Bytes of the stored targets of answers that are all as long as they may be."""
    stored = recipe.stored_targets
    if stored is None:
        return 0
    vocab = (models.teacher or models.student).padded_vocab
    return expected_bytes(stored.kind, rows * recipe.generate.max_new_tokens, vocab, stored.per_token)


def check_disk(recipe: Recipe, models: Models, splits: Mapping[str, Sequence[Row]], file: File, runs: Path) -> Disk:
    """Disk a run fills, stage by stage: what stays of each, and what is there for a while only.

    While a model trains, two checkpoints may stand side by side; the export step holds an F16 file beside the shipped
    one.

    Raises:
        RecipeError: there is not enough free under `runs`, or in the hub's cache.
    """
    student, whole = models.student_spec.parameters, models.student_spec.quantized("F16").weight_bytes
    trained = 2 if recipe.train.has_control else 1
    teacher = (models.teacher.parameters if models.teacher else None) or 0
    answers = 4 * len(splits["test"]) * (_ROW_BYTES + _TOKEN_BYTES * recipe.generate.max_new_tokens)
    stages = {
        "finetune": (teacher * _bytes_per_weight(recipe), 2 * checkpoint_bytes(teacher)),
        "generate": (_row_bytes(recipe, splits), 0),
        "targets": (_target_bytes(recipe, models, len(splits["prompts"]) + len(splits.get("validation", ()))), 0),
        "train": (trained * 4 * student, 2 * checkpoint_bytes(student)),
        "export": (file.bytes, whole + file.bytes - file.weight_bytes),
        "evaluate": (answers, 0),
        "package": (file.bytes, 0),
    }
    if recipe.teacher.finetune is None:
        del stages["finetune"]
    if recipe.stored_targets is None:
        del stages["targets"]
    needed = kept = 0
    for stays, passing in stages.values():
        kept += stays
        needed = max(needed, kept + passing)
    _check_hub_cache(models)
    place = _existing(runs)
    disk = Disk(
        stays={name: stays for name, (stays, _) in stages.items()}, needed=needed, free=shutil.disk_usage(place).free
    )
    if disk.needed > disk.free:
        raise RecipeError(
            f"{place}: the run needs {format_size(needed)} of disk, most of it for checkpoints and models, and "
            f"{format_size(disk.free)} are free. Free some, or choose another folder with --runs."
        )
    return disk


def _check_hub_cache(models: Models) -> None:
    """Raise RecipeError when weights still to come from the hub do not fit beside its cache."""
    waiting = [m for m in (models.teacher, models.student) if m and m.download]
    if not waiting:
        return
    place = _existing(waiting[0].folder)
    needed, free = sum(m.download for m in waiting), shutil.disk_usage(place).free
    if needed > free:
        raise RecipeError(
            f"{place}: the weights of {' and '.join(m.name for m in waiting)} are still to be downloaded, about "
            f"{format_size(needed)}, and {format_size(free)} are free. Free some, or put the cache elsewhere with "
            "HF_HOME."
        )


def _bytes_per_weight(recipe: Recipe) -> int:
    """What the teacher is saved and computes in."""
    return 2 if recipe.teacher.kind == "local" and recipe.teacher.saved_dtype == "bfloat16" else 4


def teacher_weight_bytes(recipe: Recipe, parameters: int, spec: ModelSpec | None) -> int:
    """What the teacher's weights take in memory: in int8 a byte each, but for the embedding and the head.

    Of layers that wait on disk, one is there at a time.
    """
    width = _bytes_per_weight(recipe)
    if spec is None:
        return width * parameters
    ends = spec.vocab * spec.hidden * (1 if spec.tied else 2)
    layers = parameters - ends
    if recipe.teacher.offload == "disk":
        layers = -(-layers // spec.layers)
    return width * ends + (1 if recipe.local_teacher.dtype == "int8" else width) * layers


def _physical_memory() -> int | None:
    try:
        return physical_memory()
    except (ValueError, OSError, AttributeError):
        return None


def check_memory(recipe: Recipe, models: Models, warnings: list[str]) -> Memory:
    """Memory of the hungriest stage; more than this machine has is a warning, because a GPU may have its own."""
    beside = models.teacher if recipe.trains_with_teacher else None
    stages = {"train": _training(recipe.schedule, models.student, beside, recipe)}
    if models.teacher:
        if recipe.teacher.finetune:
            stages["finetune"] = _training(recipe.finetune_schedule, models.teacher, None, recipe)
        stages["generate"] = _generating(recipe, models.teacher)
    stage = max(stages, key=lambda name: sum(stages[name].values()))
    needed, physical = sum(stages[stage].values()), _physical_memory()
    if physical is not None and needed > physical:
        parts = ", ".join(f"{name} {format_size(size)}" for name, size in stages[stage].items() if size)
        key = {
            "train": "train.batch_tokens",
            "finetune": "teacher.finetune.batch_tokens",
            "generate": "generate.batch_size",
        }
        warnings.append(
            f"{key[stage]}: the {stage} stage will hold about {format_size(needed)} ({parts}), and this machine has "
            f"{format_size(physical)}. Unless a GPU with that much does the work, lower it."
        )
    return Memory(stage=stage, parts=stages[stage], needed=needed, physical=physical)


def _training(schedule: Schedule, model: Model, teacher: Model | None, recipe: Recipe) -> dict[str, int]:
    """Parts of what training holds; of an unknown architecture only weights, gradients and moments."""
    if model.spec is None:
        return {"student": 16 * (model.parameters or 0)}
    return training_memory_bytes(
        model.spec,
        schedule.batch_tokens,
        width=min(256, recipe.chat.context),
        bf16=schedule.precision == "bf16",
        lora_rank=schedule.lora_rank,
        recompute=schedule.activation_checkpointing,
        teacher_bytes=teacher_weight_bytes(recipe, teacher.parameters or 0, teacher.spec) if teacher else 0,
        teacher_hidden=teacher.spec.hidden if teacher and teacher.spec and recipe.scores_online else 0,
    )


def _generating(recipe: Recipe, teacher: Model) -> dict[str, int]:
    """Parts of what decoding holds: weights, the KV cache of a full batch, the last position's logits."""
    width, batch = _bytes_per_weight(recipe), recipe.generate.batch_size
    kv = teacher.spec.kv_elements * batch * recipe.chat.context * width if teacher.spec else 0
    return {
        "teacher": teacher_weight_bytes(recipe, teacher.parameters or 0, teacher.spec),
        "kv": kv,
        "logits": 3 * 4 * batch * teacher.padded_vocab,
    }
