"""What the exporter would refuse, found from config.json and the tokenizer's files before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.components.conversion.architecture import hyperparameters
from potstill.components.conversion.tokenizer import read_tokenizer
from potstill.components.models.configs import from_config
from potstill.components.models.recipe_models import Model
from potstill.core.errors import RecipeError, StepError
from potstill.core.recipe import Recipe

__all__ = ["export_notes", "export_problems", "require_exportable", "require_quantization"]


def export_problems(model: Model, name: str) -> list[str]:
    """Why a model cannot be exported, in the exporter's own words; empty where nothing is known against it.

    Args:
        model: the model; its weights are not needed.
        name: `general.name` of the file, which llama.cpp looks at.
    """
    problems = []
    try:
        hyperparameters(model.config, model.folder / "config.json", tied=True)
    except StepError as error:
        problems.append(str(error))
    try:
        read_tokenizer(model.folder, model.padded_vocab, chat=True, name=name)
    except StepError as error:
        problems.append(str(error))
    return problems


def require_exportable(recipe: Recipe, student: Model) -> None:
    """Raise RecipeError for a student that the export stage would refuse, after everything has been paid for."""
    if problems := export_problems(student, recipe.name):
        key = "student.model" if recipe.student.model else "student.init"
        raise RecipeError(f"{key}: the student cannot be exported to GGUF. {problems[0]}")


def export_notes(recipe: Recipe, student: Model) -> tuple[str, ...]:
    """What llama.cpp's tokenizer does differently from the student's, in sentences."""
    try:
        return read_tokenizer(student.folder, student.padded_vocab, chat=True, name=recipe.name).notes
    except StepError:  # it cannot be exported at all, which `require_exportable` says
        return ()


def require_quantization(config: Mapping[str, Any], quantization: str) -> None:
    """Raise StepError where this machine cannot write a type that the model's file needs."""
    import numpy as np

    from potstill.components.conversion.quantize import quantize, tensor_type

    spec = from_config(config)
    kinds = {tensor_type(name, dims, spec.layers, quantization, tied=spec.tied) for name, dims in spec.tensors.items()}
    for kind in kinds:
        quantize(np.ones((1, 256), np.float32), kind)
