"""The recipe: one YAML file that says everything a run does. One class a stage; the YAML is this and nothing else.

Unknown keys are errors, with the nearest known key named. Paths are relative to the recipe's own folder. A recipe is of
a language model, or, with `task: classify`, of an encoder with a classification head.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from potstill.core.errors import RecipeError
from potstill.core.recipe.classifier import (
    ClassifierEvaluate,
    ClassifierGates,
    ClassifierStudent,
    ClassifierTeacher,
    ClassifierTrain,
    LabelledData,
)
from potstill.core.recipe.objectives import MOST_SERVED, Train
from potstill.core.recipe.sections import (
    Chat,
    Data,
    Economy,
    Evaluate,
    Export,
    Finetune,
    Gates,
    Generate,
    Package,
    Price,
    Quantization,
    Schedule,
    Section,
    Shape,
    Student,
    Target,
    Teacher,
)
from potstill.core.records import first_problem

__all__ = [
    "AnyRecipe",
    "Chat",
    "ClassifierRecipe",
    "Data",
    "Economy",
    "Evaluate",
    "Export",
    "Finetune",
    "Gates",
    "Generate",
    "Package",
    "Price",
    "Quantization",
    "Recipe",
    "Schedule",
    "Shape",
    "Student",
    "Target",
    "Teacher",
    "Train",
    "load_recipe",
]


class _RecipeFile(Section):
    """What every recipe has."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = 0

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Folder of the recipe's file; the working directory of a recipe that has none."""
        return self._folder


class Recipe(_RecipeFile):
    """A whole run."""

    data: Data
    chat: Chat = Chat()
    teacher: Teacher
    generate: Generate = Generate()
    student: Student
    train: Train = Train()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    gates: Gates = Gates()
    target: Target = Target()
    package: Package = Package()

    @property
    def scores_beside(self) -> bool:
        """Whether the teacher's distributions are computed while the student trains."""
        return self.train.objective != "sft" and self.train.targets.kind == "online"

    @property
    def trains_with_teacher(self) -> bool:
        """Whether the teacher is in memory while the student trains: it teaches then, or the student is cut from it."""
        return self.teacher.kind == "local" and (
            self.scores_beside or self.train.hidden is not None or self.student.init == "teacher_layers"
        )

    @property
    def token_by_token(self) -> str | None:
        """What compares student and teacher by tokens, so that both need one tokenizer; None: nothing does. Text needs
        none in common, and forward_kl is told over spans of text where there is none."""
        if self.train.objective == "sft":
            return None
        by_id = {
            f"train.objective: {self.train.objective}": self.train.objective != "forward_kl",
            "train.hidden": self.train.hidden is not None,
            "train.on_policy": self.train.on_policy is not None,
            "gates.kl_mean": self.gates.kl_mean is not None,
            "gates.top1_agreement": self.gates.top1_agreement is not None,
        }
        return next((key for key, reads in by_id.items() if reads), None)

    @property
    def asked_log_probs(self) -> int | None:
        """How many tokens' log-probabilities an endpoint is asked for, at each token of its answers; None: for none."""
        stored = self.train.targets
        return stored.k if self.teacher.kind == "api" and stored.kind == "top_k" else None

    @model_validator(mode="after")
    def _endpoint_teaches(self) -> Self:
        if self.teacher.kind != "api":
            return self
        kind = self.train.targets.kind
        if kind == "online" and (self.train.objective != "sft" or self.train.control != "none"):
            raise ValueError(
                "an api teacher cannot run beside the student: set train.objective: sft and train.control: none to "
                "learn from its text; or, if it gives log-probabilities and the student has its tokenizer, "
                f"train.targets: {{kind: top_k, k: {MOST_SERVED}}}"
            )
        if self.student.init != "checkpoint":
            raise ValueError("an api teacher has no weights to start from: set student.init: checkpoint")
        if kind == "counts":
            raise ValueError(
                "train.targets.kind: counts are drawn from whole distributions, and an api teacher gives its likeliest "
                f"tokens alone: set train.targets: {{kind: top_k, k: {MOST_SERVED}}}"
            )
        if problem := self._unfit_for_log_probs() if kind == "top_k" else None:
            raise ValueError(problem)
        return self

    def _unfit_for_log_probs(self) -> str | None:
        """What in the recipe does not go with an endpoint's log-probabilities."""
        train, answers = self.train, self.generate
        if train.targets.k > MOST_SERVED:
            return (
                f"train.targets.k: {train.targets.k} is more tokens than endpoints give: at most {MOST_SERVED} with "
                f"OpenAI's API, and with vLLM unless it is started otherwise. Set k: {MOST_SERVED} or less"
            )
        if train.temperature != 1:
            return (
                f"train.temperature: {train.temperature:g} would soften distributions of which an api teacher gives "
                "the likeliest tokens alone, at temperature 1: leave it out"
            )
        if train.hidden is not None:
            return "train.hidden needs the teacher's weights, which an endpoint keeps: leave it out"
        if self.student.vocabulary == "workload":
            return (
                "student.vocabulary: workload drops tokens that an api teacher's log-probabilities are of: set "
                "student.vocabulary: full"
            )
        if answers.temperature not in (0, 1) or (answers.temperature and answers.top_p != 1):
            what = f"top_p: {answers.top_p:g}" if answers.temperature == 1 else f"temperature: {answers.temperature:g}"
            return (
                f"generate.{what}: some endpoints give log-probabilities as the model has them, and some as they are "
                "after temperature and top_p, and do not say which. Set generate.temperature to 0 or 1, where they "
                "agree, and leave top_p out"
            )
        return None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.student.init == "teacher_layers" and (self.teacher.dtype == "int8" or self.teacher.offload):
            what = f"offload: {self.teacher.offload}" if self.teacher.offload else "dtype: int8"
            raise ValueError(
                f"teacher.{what} leaves no whole weights in memory for student.init: teacher_layers to take. Leave it "
                "out, or start the student from a checkpoint"
            )
        if self.train.objective == "sft" and self.train.control == "sft":
            raise ValueError("train.objective is sft already, so its control would be itself: set train.control: none")
        if self.student.vocabulary == "workload" and self.train.targets.kind != "online":
            raise ValueError(
                f"targets of kind {self.train.targets.kind} are stored in the teacher's ids, which a student with "
                "student.vocabulary: workload has not: set train.targets.kind: online, or student.vocabulary: full"
            )
        if self.train.lora_rank and self.student.init == "scratch":
            raise ValueError("train.lora_rank leaves all other weights as they are: leave it out with init 'scratch'")
        if self.gates.beats_control and self.train.control == "none":
            raise ValueError("gates.beats_control needs train.control: sft")
        return self


class ClassifierRecipe(_RecipeFile):
    """A whole run for an encoder with a classification head."""

    task: Literal["classify"]
    data: LabelledData
    teacher: ClassifierTeacher
    student: ClassifierStudent
    train: ClassifierTrain = ClassifierTrain()
    evaluate: ClassifierEvaluate = ClassifierEvaluate()
    gates: ClassifierGates = ClassifierGates()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.gates.beats_control and self.train.control == "none":
            raise ValueError("gates.beats_control needs train.control: sft")
        if any(schedule and schedule.lora_rank for schedule in (self.teacher.finetune, self.train)):
            raise ValueError("lora_rank leaves the classification head as it is, and that is what must be learnt")
        return self


AnyRecipe = Recipe | ClassifierRecipe


def _nearest_key(error: ValidationError, kind: type[BaseModel]) -> str | None:
    """For an unknown key: a sentence that names it and the nearest key its section has."""
    for problem in error.errors():
        if problem["type"] != "extra_forbidden":
            continue
        *parents, key = problem["loc"]
        section: Any = kind
        for parent in parents:
            annotation = section.model_fields[str(parent)].annotation
            candidates = [annotation, *getattr(annotation, "__args__", ())]
            section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}."
        return f"unknown key {'.'.join(map(str, problem['loc']))!r}; {hint}"
    return None


def _line_of(text: str, location: tuple[Any, ...]) -> int | None:
    """Line (from 1) at which the deepest part of a key path that exists stands in the YAML text."""
    node = yaml.compose(text)
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def _change(values: dict[str, Any], key: str, value: str) -> None:
    """Set a dotted key, its value read as YAML."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{key}: {parent} is no section of the recipe, so nothing in it can be changed.")
        values = inner
    values[last] = yaml.safe_load(value)


def _kind(value: Mapping[str, Any], path: Path) -> type[Recipe] | type[ClassifierRecipe]:
    """The class of a recipe, by its `task`."""
    if "task" not in value:
        return Recipe
    if value["task"] != "classify":
        raise RecipeError(
            f"{path}: there is no task {value['task']!r}. Set task: classify for an encoder with a classification "
            "head, or leave it out for a language model."
        )
    return ClassifierRecipe


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
    kind = _kind(value, path)
    try:
        recipe = kind.model_validate(value, context={"folder": path.resolve().parent})
    except ValidationError as error:
        line = _line_of(text, error.errors()[0]["loc"])
        where = f"{path}:{line}" if line else str(path)
        raise RecipeError(f"{where}: {_nearest_key(error, kind) or first_problem(error)}") from None
    recipe._folder = path.resolve().parent
    return recipe


def recipe_hash(recipe: AnyRecipe) -> str:
    """SHA-256 of the recipe's values, defaults included; paths count relative to the recipe, wherever it lies."""

    def portable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: portable(v) for key, v in value.items()}
        if isinstance(value, list):
            return [portable(v) for v in value]
        local = isinstance(value, str) and os.path.isabs(value)
        return Path(os.path.relpath(value, recipe.folder)).as_posix() if local else value

    values = portable(recipe.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
