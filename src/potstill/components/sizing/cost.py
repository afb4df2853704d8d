"""What making a student takes: operations, hours and disk. Prices are in `prices`.

Operations are counted as in Kaplan et al. (arXiv:2001.08361): per parameter and token 2 forward and 4 backward. Answers
are written one token after the other, so their hours depend on bandwidth too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from potstill.components.hardware.devices import Device
from potstill.components.sizing.training_memory import checkpoint_bytes, saved_bytes_per_weight
from potstill.components.sizing.workload import Workload
from potstill.components.targets.meta import expected_bytes
from potstill.core.artifacts.check import DiskNeed, MemoryNeed
from potstill.core.recipe import Recipe

__all__ = ["FORWARD", "TRAINED", "Hours", "Size", "Training", "hours_on", "training"]

Hours = tuple[float, float]
"""Low and high."""

FORWARD, TRAINED = 2.0, 6.0
"""Operations per parameter and token."""
_STEP_LAYER = (1e-3, 2e-4)
"""Seconds per layer, slow and fast, in which torch starts the kernels of one step of generation: an assumption."""


@dataclass(frozen=True)
class Size:
    """A model's number of parameters and of layers."""

    parameters: int
    layers: int


@dataclass(frozen=True)
class Training:
    """What making a student takes.

    machine        name of the device that trains
    parts          operations by purpose: student, control, worth (the other rungs), teacher (its passes over the
                   rows), finetune
    hours          of training on the machine, low and high
    writing        hours in which answers are written there: by a local teacher, and by the student (on-policy)
    disk_bytes     most disk that is filled at a time: by the whole run where it is known, else by training the student
    disk_stays     disk that stays, by stage, where it is known
    target_bytes   size of the stored targets
    memory         of the stage that needs the most, where it is known
    """

    machine: str
    operations: float
    parts: Mapping[str, float]
    hours: Hours
    writing: Mapping[str, Hours]
    disk_bytes: int
    disk_stays: Mapping[str, int] | None
    target_bytes: int
    memory: MemoryNeed | None = None

    @property
    def all_hours(self) -> Hours:
        """Hours of training and of writing answers, low and high."""
        ends = (self.hours, *self.writing.values())
        return sum(low for low, _ in ends), sum(high for _, high in ends)


def training(
    student: Size,
    teacher: Size | None,
    recipe: Recipe,
    work: Workload,
    machine: Device,
    vocab: int,
    disk: DiskNeed | None = None,
    memory: MemoryNeed | None = None,
) -> Training:
    """What training a student takes, with its control (train.control), the other rungs (worth), the teacher's passes
    over the rows (train.objective.targets) and the teacher's own training (teacher.finetune).

    Args:
        student: its size.
        teacher: size of a local teacher; None for an endpoint.
        recipe: the recipe.
        work: rows and tokens.
        machine: where training runs; its rate is the data sheet's, or the measured one, times its range of efficiency.
        vocab: size of the teacher's vocabulary.
        disk: what the whole run fills, where this is the recipe's own student.
        memory: what the run holds, where this is the recipe's own student.
    """
    stored, trained_tokens = recipe.stored_targets, work.tokens * work.epochs
    parts = {"student": TRAINED * student.parameters * trained_tokens}
    if recipe.train.has_control:
        parts["control"] = parts["student"]
    rungs = [rung for rung in recipe.worth_models.values() if rung != "labels" or work.right_answers]
    if rungs:
        parts["worth"] = len(rungs) * parts["student"]
    if teacher and recipe.train.objective.name != "sft":
        parts["teacher"] = FORWARD * teacher.parameters * work.tokens * _passes(recipe, work)
        # stored targets are read again; the teacher reads rows again while it runs along
        along = [rung for rung in rungs if rung == "recipe" or (rung == "distributions" and recipe.scores_online)]
        if along and (recipe.scores_online or recipe.train.objective.hidden):
            parts["worth"] += FORWARD * teacher.parameters * work.tokens * work.epochs * len(along)
    if teacher and recipe.teacher.finetune:
        parts["finetune"] = TRAINED * teacher.parameters * work.finetune_tokens * recipe.teacher.finetune.epochs
    operations = sum(parts.values())
    targets = 0
    if stored is not None:
        targets = expected_bytes(stored.kind, round(work.rows * work.answer), vocab, stored.k)
    saved = (1 + recipe.train.has_control + len(rungs)) * 4 * student.parameters
    return Training(
        machine=machine.name,
        operations=operations,
        parts=parts,
        hours=hours_on(machine, operations),
        writing=_writing(student, teacher, recipe, work, machine),
        disk_bytes=disk.needed if disk else 2 * checkpoint_bytes(student.parameters) + saved + targets,
        disk_stays=disk.stays if disk else None,
        target_bytes=targets,
        memory=memory,
    )


def hours_on(machine: Device, operations: float) -> Hours:
    """Hours of training on a machine, low and high."""
    slow, fast = machine.training
    return operations / fast / 3600, operations / slow / 3600


def _passes(recipe: Recipe, work: Workload) -> float:
    """How often the teacher reads the rows: in each epoch, or once where its targets are stored."""
    if recipe.stored_targets is None:
        return work.epochs
    return 1.0 + (work.epochs if recipe.train.objective.hidden else 0.0)


def _writing(student: Size, teacher: Size | None, recipe: Recipe, work: Workload, machine: Device) -> dict[str, Hours]:
    """Hours in which answers are written on the machine, by whom."""
    found, own, batch = {}, recipe.train.objective.on_policy, recipe.generate.batch_size
    if teacher:
        width = 1 if recipe.local_teacher.dtype == "int8" else saved_bytes_per_weight(recipe)
        source = machine.storage if recipe.local_teacher.offload == "disk" else None
        found["teacher"] = _writing_hours(teacher, width, work.answered_rows, work, batch, machine, source)
    if own:
        students = 1 + list(recipe.worth_models.values()).count("recipe")
        rows = own.share * work.rows * work.epochs * students
        found["student"] = _writing_hours(student, 4, rows, work, batch, machine)
    return found


def _writing_hours(
    model: Size, width: int, rows: float, work: Workload, batch: int, machine: Device, source: float | None = None
) -> Hours:
    """Hours in which a model writes answers with torch.

    A step reads all weights and computes one token of each row in a batch; before that the prompts are computed.

    Args:
        model: its size.
        width: bytes per weight.
        rows: number of answers.
        work: tokens of a prompt and of an answer.
        batch: rows at once.
        machine: the device.
        source: bytes/s of the drive that the weights are read from in each step; None where they are in memory.
    """
    ends = []
    for share, rate, layer in zip(machine.efficiency, machine.training, _STEP_LAYER, strict=True):
        token = FORWARD * model.parameters / rate
        read = model.parameters * width / (source or machine.bandwidth * share)
        step = max(read, min(batch, rows) * token) + model.layers * layer
        ends.append((math.ceil(rows / batch) * work.answer * step + rows * work.prompt * token) / 3600)
    slow, fast = ends
    return fast, slow
