"""Disk that a run fills, stage by stage, and what is still to be downloaded."""

from __future__ import annotations

from potstill.components.models.recipe_models import Models
from potstill.components.sizing.file_size import file_size
from potstill.components.sizing.training_memory import saved_bytes_per_weight, training_bytes
from potstill.components.sizing.workload import Splits
from potstill.components.targets.meta import expected_bytes
from potstill.core.artifacts.check import DiskNeed, Download
from potstill.core.recipe import Recipe

__all__ = ["disk_need", "pending_download"]

_ROW_BYTES = 1000
"""Provenance of a generated row, and its row in the journal of the teacher."""
_TOKEN_BYTES = 4
_LOGPROB_BYTES = 8
"""One log-probability that an endpoint gives, packed."""


def disk_need(recipe: Recipe, models: Models, splits: Splits) -> DiskNeed:
    """Disk that a run fills: what stays of each stage, and the most that is there at any time.

    The export stage holds an F16 file as well as the shipped one.
    """
    file, spec = file_size(recipe, models), models.student_spec
    # the student, its control, and the student before training; random weights are not kept
    saved = 1 + recipe.train.has_control + (recipe.student.init != "scratch")
    validated = recipe.data.validation is not None
    teacher = (models.teacher.parameters if models.teacher else None) or 0
    answered = len(splits["prompts"]) + len(splits.get("validation", ()))
    answers = (
        (5 + len(recipe.worth_models))
        * len(splits["test"])
        * (_ROW_BYTES + _TOKEN_BYTES * recipe.generate.max_new_tokens)
    )
    f16 = spec.quantized("F16").weight_bytes + file.bytes - file.weight_bytes
    # stage -> bytes that stay, bytes that are there while it runs
    stages = {"generate": (_generated_bytes(recipe, answered), 0)}
    if recipe.teacher.finetune:
        stages = {
            "finetune": (
                teacher * saved_bytes_per_weight(recipe),
                training_bytes(teacher, validated),
            ),
            **stages,
        }
    if recipe.stored_targets:
        stages["targets"] = (_target_bytes(recipe, models, answered), 0)
    stages["train"] = (saved * 4 * spec.parameters, training_bytes(spec.parameters, validated))
    if recipe.worth_models:
        stages["worth"] = (len(recipe.worth_models) * 4 * spec.parameters, training_bytes(spec.parameters, validated))
    stages |= {
        "export": (file.bytes, f16),
        "evaluate": (answers, 0),
        "package": (file.bytes, 0),
    }
    needed = kept = 0
    for stays, passing in stages.values():
        kept += stays
        needed = max(needed, kept + passing)
    return DiskNeed(stays={name: stays for name, (stays, _) in stages.items()}, needed=needed)


def _generated_bytes(recipe: Recipe, count: int) -> int:
    """Bytes of the generated rows and of the stored answers; each row is written with its tools."""
    data = recipe.data
    files = sum(path.stat().st_size for path in (data.prompts, data.validation) if path)
    tools = data.tools.stat().st_size if data.tools else 0
    token = 2 * (_TOKEN_BYTES + _LOGPROB_BYTES * (recipe.requested_logprobs or 0))
    return files + count * (tools + token * recipe.generate.max_new_tokens + _ROW_BYTES)


def _target_bytes(recipe: Recipe, models: Models, rows: int) -> int:
    """Bytes of stored targets, if every answer is as long as it may be."""
    stored = recipe.stored_targets
    assert stored is not None
    vocab = (models.teacher or models.student).padded_vocab
    return expected_bytes(stored.kind, rows * recipe.generate.max_new_tokens, vocab, stored.k)


def pending_download(models: Models) -> Download | None:
    """Weights that the hub still has to send; None where all are here."""
    waiting = [model for model in (models.teacher, models.student) if model and model.download]
    if not waiting:
        return None
    return Download(
        models=tuple(model.name for model in waiting),
        folder=str(waiting[0].folder),
        bytes=sum(model.download for model in waiting),
    )
