"""Reading a recipe from YAML, and errors that name the file, the line, the key and the nearest key or value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from potstill.core.errors import RecipeError
from potstill.core.recipe.classifier import ClassifierRecipe
from potstill.core.recipe.recipe import Recipe

__all__ = ["MOVED", "AnyRecipe", "load_recipe", "sections_of"]

AnyRecipe = Recipe | ClassifierRecipe

_TASKS: dict[str, type[AnyRecipe]] = {"classify": ClassifierRecipe}

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
        "export.parity_rows": "is gone: eight rows are compared",
        "evaluate.fidelity_rows": "is called evaluate.rows now",
        "evaluate.latency_requests": "is called evaluate.rows now",
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
    text = path.read_text(encoding="utf-8")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections (name, data, teacher, student, ...).")
    for key, changed in (changes or {}).items():
        _change(value, key, changed)
    try:
        kind = _kind_of(value)
        if moved := next((old for old in MOVED[kind] if _has(value, old)), None):
            raise _Problem(tuple(moved.split(".")), f"{moved} {MOVED[kind][moved]}")
        try:
            recipe = kind.model_validate(value, context={"folder": path.resolve().parent})
        except ValidationError as error:
            raise _first_problem(error, kind, value) from None
    except _Problem as problem:
        line = _line_of(text, problem.path)
        raise RecipeError(f"{path}:{line}: {problem}." if line else f"{path}: {problem}.") from None
    recipe._folder = path.resolve().parent
    return recipe


def _change(values: dict[str, Any], key: str, value: str) -> None:
    """Set a dotted key, its value read as YAML. A section that is written as a bare string becomes a mapping."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{key}: {parent} is not a section of the recipe, so nothing in it can be changed.")
        values = inner
    values[last] = yaml.safe_load(value)


class _Problem(Exception):
    """What is wrong at a key of the recipe, without the full stop."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def _kind_of(value: Mapping[str, Any]) -> type[AnyRecipe]:
    """The class of a recipe, by its `task`."""
    if "task" not in value:
        return Recipe
    task = value["task"]
    if task not in _TASKS:
        raise _Problem(
            ("task",),
            f"task: there is no task {task!r}. Set task: classify for an encoder with a classification head, or leave "
            "it out for a language model",
        )
    return _TASKS[task]


def _has(value: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def _first_problem(error: ValidationError, kind: type[BaseModel], value: Any) -> _Problem:
    """The first complaint of pydantic, in terms of the recipe. An unknown key comes first."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path, section = _resolve(kind, first["loc"])
    return _Problem(path, _message(first, path, section))


def _message(error: ErrorDetails, path: tuple[str | int, ...], section: type[BaseModel]) -> str:
    key, context = ".".join(map(str, path)), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields)
            near = _nearest(path[-1], known)
            return f"unknown key {key!r}; " + (
                f"did you mean {near!r}?" if near else f"known keys are {_listed(known)}"
            )
        case "literal_error":
            return _wrong_value(key, error["input"], _quoted(context["expected"]))
        case "union_tag_invalid":
            tag = context["discriminator"].strip("'")
            return _wrong_value(f"{key}.{tag}", context["tag"], _quoted(context["expected_tags"]))
        case "value_error":
            return f"{key}: {context['error']}" if key else str(context["error"])
        case "missing":
            return f"{key} is missing; the key is required"
        case _:
            return f"{key or '(top level)'}: {error['msg']}"


def _wrong_value(key: str, value: Any, known: list[str]) -> str:
    near = _nearest(value, known)
    return f"{key}: there is no {value!r}; " + (f"did you mean {near!r}?" if near else f"there are {_listed(known)}")


def _nearest(word: Any, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)), None)


def _listed(words: list[str]) -> str:
    return ", ".join(words)


def _quoted(text: str) -> list[str]:
    """The words in single quotes of a pydantic message."""
    return re.findall(r"'([^']*)'", text)


def sections_of(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Sections that a field may hold, by the value of its discriminator; of a field without one, by an empty name."""
    classes = [c for c in _classes(field.annotation) if isinstance(c, type) and issubclass(c, BaseModel)]
    if len(classes) < 2:
        return dict.fromkeys([""], classes[0]) if classes else {}
    assert isinstance(field.discriminator, str)
    return {get_args(c.model_fields[field.discriminator].annotation)[0]: c for c in classes}


def _classes(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _resolve(kind: type[BaseModel], location: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], type[BaseModel]]:
    """A location of pydantic without the tags of unions and "[key]", and the section that its last key is in."""
    path: list[str | int] = []
    section = kind
    members: dict[str, type[BaseModel]] = {}
    within: dict[str, type[BaseModel]] = {}
    for part in location:
        if part in members:
            within = {"": members[str(part)]}
            members = {}
            continue
        members = {}
        if part == "[key]":
            continue
        section = within.get("", section)
        path.append(part)
        field = section.model_fields.get(str(part))
        found = sections_of(field) if field else {}
        within, members = (found, {}) if "" in found or not found else ({}, found)
    return tuple(path), section


def _line_of(text: str, location: tuple[str | int, ...]) -> int | None:
    """Line (from 1) in the YAML text of the deepest part of a key path that exists."""
    node = yaml.compose(text)
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
