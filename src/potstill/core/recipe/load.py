"""Reading a recipe from YAML. A key of an earlier version is an error that says what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from potstill.core.errors import RecipeError
from potstill.core.files import read_text
from potstill.core.recipe.classifier import ClassifierRecipe
from potstill.core.recipe.problems import Problem, first_problem, line_of, sections_of
from potstill.core.recipe.recipe import Recipe
from potstill.core.recipe.yaml_text import BadYaml, read_yaml

__all__ = ["MOVED", "AnyRecipe", "load_recipe"]

AnyRecipe = Recipe | ClassifierRecipe

_TASKS: dict[str, type[AnyRecipe]] = {"classify": ClassifierRecipe}

_MOST_BYTES = 200_000  # of a recipe

_SCHEDULE = {
    "accumulate": "is called trainer.gradient_accumulation now",
    "warmup": "is called trainer.warmup_ratio now",
    "weight_decay": "is called trainer.weight_decay now",
    "precision": "is called trainer.precision now",
    "activation_checkpointing": "is called trainer.activation_checkpointing now",
    "checkpoint_every": "is called trainer.checkpoint_every now",
    "max_grad_norm": "is gone: gradients are clipped at norm 1",
}
_ALL_TASKS = {
    f"{section}.{old}": new for section in ("train", "teacher.finetune") for old, new in _SCHEDULE.items()
} | {
    "train.final_rate": "is called train.min_lr_ratio now",
    "teacher.finetune.final_rate": "is called teacher.finetune.min_lr_ratio now",
    "train.tracker": "is called trainer.tracker now",
    "data.license": "is called licenses.data now",
    "teacher.license": "is called licenses.teacher now",
    "teacher.revision": "is a part of teacher.model now: ID@REVISION",
}
MOVED: dict[type[AnyRecipe], dict[str, str]] = {
    Recipe: _ALL_TASKS
    | {
        "data.test_limit": "is called data.limit.test now",
        "teacher.price": "is called prices.input and prices.output now",
        "student.license": "is called licenses.student now",
        "train.beta": "is called train.objective.beta now",
        "train.alpha": "is called train.objective.alpha now",
        "train.temperature": "is called train.objective.temperature now",
        "train.hard_label_share": "is called train.objective.hard_label_weight now",
        "train.targets": "is called train.objective.targets now",
        "train.hidden": "is called train.objective.hidden now",
        "train.on_policy": "is called train.objective.on_policy now",
        "train.kernel": "is called trainer.kernel now",
        "export.parity_rows": "is gone: the prompts of all rows and the answers of eight are compared",
        "evaluate.fidelity_rows": "is called evaluate.rows now",
        "evaluate.latency_requests": "is gone: 120 requests are timed, in three loads of the server",
        "target.economy": "is called prices.device_hour and prices.train_hour now",
        "package.license": "is called licenses.package now",
    },
    ClassifierRecipe: _ALL_TASKS
    | {
        "student.license": "is called licenses.package now",
        "train.hard_label_share": "is called train.hard_label_weight now",
        "train.lora_rank": "is gone: adapters leave the classification head as it is",
        "teacher.finetune.lora_rank": "is gone: adapters leave the classification head as it is",
    },
}
"""Keys of earlier versions, each with what became of it."""


def load_recipe(path: Path, changes: Mapping[str, str] | None = None) -> AnyRecipe:
    """Read and validate a recipe, with dotted keys changed to other values (as YAML) if `changes` are given.

    Raises:
        RecipeError: the file is absent, not YAML, or not a valid recipe; the message names file, line and key.
    """
    if not path.is_file():
        raise RecipeError(
            f"{path}: no such recipe. Give the path of a YAML file; recipes/quickstart.yaml is one to start from."
        )
    text = read_text(path, error=RecipeError, advice="Save the recipe as UTF-8.", most_bytes=_MOST_BYTES)
    try:
        value = read_yaml(text)
        new = {key: read_yaml(changed) for key, changed in (changes or {}).items()}
    except BadYaml as error:
        raise RecipeError(f"{path}: not valid YAML: {error}.") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections (name, data, teacher, student, ...).")
    folder = path.resolve().parent
    try:
        kind = _kind_of(value)
        for key, changed in new.items():
            _change(value, kind, key, changed)
        recipe = _validated(value, kind, folder)
    except Problem as problem:
        line = line_of(text, problem.path)
        raise RecipeError(f"{path}:{line}: {problem}" if line else f"{path}: {problem}") from None
    recipe._folder = folder
    return recipe


def _kind_of(value: Mapping[str, Any]) -> type[AnyRecipe]:
    """The class of a recipe, by its `task`."""
    if "task" not in value:
        return Recipe
    if not isinstance(value["task"], str) or value["task"] not in _TASKS:
        raise Problem(
            ("task",),
            f"task: there is no task {value['task']!r}. Set task: classify for an encoder with a classification head, "
            "or leave it out for a language model",
        )
    return _TASKS[value["task"]]


def _change(values: dict[str, Any], kind: type[BaseModel], key: str, value: Any) -> None:
    """Set a dotted key. A choice that is written as a bare string becomes a mapping, so that its keys can be set."""
    *parents, last = key.split(".")
    kinds: dict[str, type[BaseModel]] = {"": kind}
    for parent in parents:
        fields = [section.model_fields[parent] for section in kinds.values() if parent in section.model_fields]
        inner = values.setdefault(parent, {})
        if isinstance(inner, str) and fields and isinstance(fields[0].discriminator, str):
            inner = values[parent] = {fields[0].discriminator: inner}
        if not isinstance(inner, dict):
            raise Problem((), f"{key}: {parent} is not a section of the recipe, so nothing in it can be changed")
        values, kinds = inner, sections_of(fields[0]) if fields else {}
    values[last] = value


def _validated(value: Mapping[str, Any], kind: type[AnyRecipe], folder: Path) -> AnyRecipe:
    for old, answer in MOVED[kind].items():
        if _has(value, old):
            raise Problem(tuple(old.split(".")), f"{old} {answer}")
    try:
        return kind.model_validate(value, context={"folder": folder})
    except ValidationError as error:
        raise first_problem(error, kind) from None


def _has(value: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True
