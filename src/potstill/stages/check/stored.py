"""Compares the tensors in a model's files with those that its config.json implies, by name and shape."""

from __future__ import annotations

import re

from potstill.components.conversion.weights import source_name
from potstill.components.models.architectures import EXPORTABLE
from potstill.components.models.recipe_models import Model, Models
from potstill.components.models.safetensors import safetensors_shapes
from potstill.components.runtimes.foreign import require_tensors
from potstill.core.errors import RecipeError
from potstill.core.recipe import Recipe

__all__ = ["require_stored"]

_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")
_COMPUTED = "rope_f"  # frequencies and factors, which are computed from config.json
_HEAD = "lm_head.weight"  # may be tied or not; `load_models` compares it with the config


def require_stored(recipe: Recipe, models: Models) -> None:
    """Raise RecipeError for a model whose files lack tensors, which loading would find after other models are paid for.

    Only the headers are read. Models whose classes cannot be exported are compared when they are loaded.
    """
    made = recipe.teacher.finetune and recipe.teacher.finetune.shape  # from random weights; only the tokenizer is used
    if models.teacher and not made:
        _compare(models.teacher)
    if recipe.student.model:
        _compare(models.student)


def _compare(model: Model) -> None:
    if model.spec is None or model.config["architectures"][0] not in EXPORTABLE:
        return
    if model.config.get("quantization_config"):  # with other tensors
        return
    if not any(model.folder.glob("model*.safetensors")):  # on the hub, or to be made
        return
    found = safetensors_shapes(model.folder)
    if not any(name.startswith("model.") for name in found):  # saved without the head
        found = {f"model.{name}": shape for name, shape in found.items()}
    layers = max((int(match[1]) + 1 for match in map(_LAYER.match, found) if match), default=0)
    if layers > model.spec.layers:  # transformers would leave the last ones out
        raise RecipeError(
            f"{model.folder}: the weights have {layers} layers, but num_hidden_layers in config.json is "
            f"{model.spec.layers}. The folder mixes files of two models; download or save the model again."
        )
    needed = {source_name(name): tuple(dims) for name, dims in model.spec.tensors.items() if _is_stored(name)}
    info = {
        "missing_keys": needed.keys() - found.keys() - {_HEAD},
        "mismatched_keys": [
            (name, found[name], dims) for name, dims in needed.items() if found.get(name, dims) != dims
        ],
        "unexpected_keys": found.keys() - needed.keys() - {_HEAD},
    }
    require_tensors(model.folder, info, is_new=lambda _: False)


def _is_stored(name: str) -> bool:
    return not name.startswith(_COMPUTED)
