"""The plan of a classifier's recipe: sizes of teacher and student, hours of training, and the licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.components.chat.tokenizer_files import encoding_errors, load_tokenizer
from potstill.components.hardware.devices import find_device
from potstill.components.licences.licences import LicenceVerdict, licence_verdict
from potstill.components.models.encoder import EncoderSizes
from potstill.components.models.folder import resolve_model
from potstill.components.sizing.cost import FORWARD, TRAINED, hours_on
from potstill.core.errors import RecipeError
from potstill.core.recipe import ClassifierRecipe
from potstill.core.records import read_labelled

__all__ = ["ClassifierPlan", "plan_classifier"]

_BYTES = 4
"""A classifier ships in fp32, as it is judged."""


@dataclass(frozen=True)
class ClassifierPlan:
    """What a classifier's recipe makes.

    rows               number of training rows
    tokens             tokens of one epoch, texts cut at data.context
    operations         of training the student, its control and the teacher; see `components.sizing.cost`
    hours              on the machine that trains, low and high
    teacher_parameters, student_parameters   with the classification head
    teacher_bytes, student_bytes             of the weights, both in fp32
    """

    name: str
    classes: int
    rows: int
    tokens: int
    teacher_parameters: int
    student_parameters: int
    teacher_bytes: int
    student_bytes: int
    machine: str
    operations: float
    hours: tuple[float, float]
    licences: LicenceVerdict


def plan_classifier(recipe: ClassifierRecipe, train_on: str = "this") -> ClassifierPlan:
    """The plan; no weight is read, and torch is not needed.

    Args:
        recipe: the recipe.
        train_on: device that trains.

    Raises:
        RecipeError: the teacher's folder is not a model with a tokenizer, or has fewer layers than the student.
        DataError: the rows cannot be read.
        UsageError: no device has the name.
    """
    folder, machine = resolve_model(recipe.teacher.model), find_device(train_on, quick=True, option="--train-on")
    rows = read_labelled(recipe.data.train)
    classes = len({row.label for row in rows})
    sizes = EncoderSizes.of(folder)
    if recipe.student.layers > len(sizes.layers):
        raise RecipeError(
            f"student.layers: {recipe.student.layers} is more than the teacher's {len(sizes.layers)} layers."
        )
    teacher = sizes.classifier(classes) if recipe.teacher.finetune else sizes
    student = teacher.student(recipe.student.layers, recipe.student.vocabulary)
    tokens = _tokens([row.text for row in rows], recipe, folder)
    operations = tokens * _per_token(recipe, teacher.multiplied, student.multiplied)
    return ClassifierPlan(
        name=recipe.name,
        classes=classes,
        rows=len(rows),
        tokens=tokens,
        teacher_parameters=teacher.parameters,
        student_parameters=student.parameters,
        teacher_bytes=_BYTES * teacher.parameters,
        student_bytes=_BYTES * student.parameters,
        machine=machine.name,
        operations=operations,
        hours=hours_on(machine, operations),
        licences=licence_verdict(recipe),
    )


def _tokens(texts: list[str], recipe: ClassifierRecipe, folder: Path) -> int:
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(recipe.data.context)
    try:
        with encoding_errors():
            return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))
    except ValueError as error:
        raise RecipeError(f"{folder / 'tokenizer.json'}: {error}. Use that of the original model.") from None


def _per_token(recipe: ClassifierRecipe, teacher: int, student: int) -> float:
    """Operations per token of the rows: all epochs of all trainings."""
    trainings = 2 if recipe.train.control == "sft" else 1
    operations = recipe.train.epochs * (trainings * TRAINED * student + FORWARD * teacher)
    if recipe.teacher.finetune:
        operations += recipe.teacher.finetune.epochs * TRAINED * teacher
    return operations
