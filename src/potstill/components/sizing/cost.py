"""What making a student takes: operations, hours and disk. Prices are in `prices`.

Operations are counted as in Kaplan et al. (arXiv:2001.08361): per parameter and token 2 forward and 4 backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from potstill.components.hardware.devices import Device
from potstill.components.sizing.training_memory import checkpoint_bytes
from potstill.components.sizing.workload import Workload
from potstill.components.targets.meta import expected_bytes
from potstill.core.artifacts.check import DiskNeed, MemoryNeed
from potstill.core.recipe import Recipe

__all__ = ["FORWARD", "TRAINED", "Training", "hours_on", "training"]

FORWARD, TRAINED = 2.0, 6.0
"""Operations per parameter and token."""
_NOT_IN_HOURS = (
    "writing an answer waits for memory more than for arithmetic, so generated answers are in neither operations nor "
    "hours"
)


@dataclass(frozen=True)
class Training:
    """What making a student takes.

    machine        name of the device that trains
    parts          operations by purpose: student, control, teacher (its passes over rows), finetune
    left_out       operations that the hours do not include: answers of a local teacher, and the student's own
    hours          on the machine, low and high
    disk_bytes     most disk that is filled at a time: by the whole run where it is known, else by training the student
    disk_stays     disk that stays, by stage, where it is known
    target_bytes   size of the stored targets
    memory         of the stage that needs the most, where it is known
    """

    machine: str
    operations: float
    parts: Mapping[str, float]
    left_out: Mapping[str, float]
    left_out_reason: str | None
    hours: tuple[float, float]
    disk_bytes: int
    disk_stays: Mapping[str, int] | None
    target_bytes: int
    memory: MemoryNeed | None = None


def training(
    student: int,
    teacher: int,
    recipe: Recipe,
    work: Workload,
    machine: Device,
    vocab: int,
    disk: DiskNeed | None = None,
    memory: MemoryNeed | None = None,
) -> Training:
    """What training a student takes, with its control (train.control), the teacher's passes over the rows
    (train.objective.targets) and the teacher's own training (teacher.finetune).

    Args:
        student: number of parameters.
        teacher: number of parameters of a local teacher; 0 for an endpoint.
        recipe: the recipe.
        work: rows and tokens.
        machine: where training runs; its rate is the data sheet's, or the measured one, times its range of efficiency.
        vocab: size of the teacher's vocabulary.
        disk: what the whole run fills, where this is the recipe's own student.
        memory: what the run holds, where this is the recipe's own student.
    """
    stored, trained_tokens = recipe.stored_targets, work.tokens * work.epochs
    parts = {"student": TRAINED * student * trained_tokens}
    if recipe.train.has_control:
        parts["control"] = parts["student"]
    if teacher and recipe.train.objective.name != "sft":
        parts["teacher"] = FORWARD * teacher * work.tokens * _passes(recipe, work)
    if teacher and recipe.teacher.finetune:
        parts["finetune"] = TRAINED * teacher * work.finetune_tokens * recipe.teacher.finetune.epochs
    operations = sum(parts.values())
    targets = 0
    if stored is not None:
        targets = expected_bytes(stored.kind, round(work.rows * work.answer), vocab, stored.k)
    models = 2 if recipe.train.has_control else 1
    left_out = _left_out(student, teacher, recipe, work)
    return Training(
        machine=machine.name,
        operations=operations,
        parts=parts,
        left_out=left_out,
        left_out_reason=_NOT_IN_HOURS if left_out else None,
        hours=hours_on(machine, operations),
        disk_bytes=disk.needed if disk else 2 * checkpoint_bytes(student) + models * 4 * student + targets,
        disk_stays=disk.stays if disk else None,
        target_bytes=targets,
        memory=memory,
    )


def hours_on(machine: Device, operations: float) -> tuple[float, float]:
    """Hours of training on a machine, low and high."""
    slow, fast = machine.training
    return operations / fast / 3600, operations / slow / 3600


def _passes(recipe: Recipe, work: Workload) -> float:
    """How often the teacher reads the rows: in each epoch, or once where its targets are stored."""
    if recipe.stored_targets is None:
        return work.epochs
    return 1.0 + (work.epochs if recipe.train.objective.hidden else 0.0)


def _left_out(student: int, teacher: int, recipe: Recipe, work: Workload) -> dict[str, float]:
    """Operations of everything that is written one token after the other."""
    found, own = {}, recipe.train.objective.on_policy
    if teacher:
        found["teacher's answers"] = FORWARD * teacher * work.answered_rows * (work.prompt + work.answer)
    if own:
        found["student's samples"] = FORWARD * student * own.share * work.tokens * work.epochs
    return found
