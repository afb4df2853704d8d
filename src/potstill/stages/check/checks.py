"""Everything that can be known of a run before it is paid for: what cannot work is refused, what may not is told."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from potstill.components.chat.format import ChatFormat
from potstill.components.checkers.judge import is_judged
from potstill.components.conversion.rules import require_exportable
from potstill.components.licences.licences import judged_by_terms, licence_verdict
from potstill.components.models.recipe_models import Model, Models, load_models
from potstill.components.sizing.limits import check_device
from potstill.components.sizing.needs import (
    Disk,
    File,
    Memory,
    RunMemory,
    check_disk,
    check_file,
    check_memory,
    check_run_memory,
    odd_rows_warning,
    vocabulary_warning,
)
from potstill.core.errors import RecipeError
from potstill.core.recipe import Recipe
from potstill.core.records import Row
from potstill.core.stats import quantile
from potstill.stages.check.rows import Lengths, check_leakage, measure_rows, read_splits

__all__ = ["CheckResult", "ModelSummary", "Quantiles", "check_recipe"]


class Quantiles(BaseModel):
    """Tokens a row."""

    rows: int
    min: int
    median: float
    p95: float
    max: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Quantiles:
        """Of one value a row; at least one row."""
        return cls(
            rows=len(values),
            min=min(values),
            median=round(quantile(values, 0.5), 1),
            p95=round(quantile(values, 0.95), 1),
            max=max(values),
        )


class ModelSummary(BaseModel):
    """A model; `vocab` tokens in the tokenizer, `padded_vocab` rows in the embedding."""

    name: str
    architecture: str
    parameters: int | None
    layers: int | None
    vocab: int
    padded_vocab: int

    @classmethod
    def of(cls, model: Model) -> ModelSummary:
        """Of a model that was loaded."""
        architecture = model.spec.architecture if model.spec else model.config.get("model_type", "unknown")
        layers = model.spec.layers if model.spec else model.config.get("num_hidden_layers")
        return cls(
            name=model.name,
            architecture=str(architecture),
            parameters=model.parameters,
            layers=layers,
            vocab=model.chat.vocab_size,
            padded_vocab=model.padded_vocab,
        )


class CheckResult(BaseModel):
    """What a check found: check.json is this.

    rows                number of rows by split
    prompt_tokens       by split, in the teacher's tokenizer (the student's where there is an endpoint)
    supervised_tokens   by split, of the rows that carry an answer
    leaked              test prompts that are trained on too
    """

    name: str
    rows: dict[str, int]
    prompt_tokens: dict[str, Quantiles]
    supervised_tokens: dict[str, Quantiles]
    leaked: int
    teacher: ModelSummary | None
    student: ModelSummary
    file: File
    run_memory: RunMemory
    disk: Disk
    memory: Memory
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json")


def check_recipe(recipe: Recipe, runs: Path) -> CheckResult:
    """Check a recipe with its models, rows and budgets; nothing is trained, and nothing is written.

    Args:
        recipe: the recipe.
        runs: folder the run will be kept in; it need not exist yet.

    Raises:
        RecipeError: a model, a budget, a gate or the disk does not fit; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    splits = read_splits(recipe)
    models = load_models(recipe)
    require_exportable(recipe, models.student)
    warnings: list[str] = []
    file = check_file(recipe, models)
    run_memory = check_run_memory(recipe, models, file, warnings)
    _check_gates(recipe, splits, warnings)
    leaked, said = check_leakage(splits)
    lengths = _measure(recipe, models, splits)
    check_device(recipe, models, statistics.median(lengths["test"].prompt), warnings)
    disk = check_disk(recipe, models, splits, file, runs)
    memory = check_memory(recipe, models, warnings)
    said_of = (said and f"data.test: {said}.", odd_rows_warning(recipe, models), vocabulary_warning(recipe, models))
    warnings += [text for text in said_of if text]
    warnings += _model_warnings(recipe, models) + _licence_warnings(recipe)
    return CheckResult(
        name=recipe.name,
        rows={name: len(rows) for name, rows in splits.items()},
        prompt_tokens={name: Quantiles.of(found.prompt) for name, found in lengths.items()},
        supervised_tokens={name: Quantiles.of(found.supervised) for name, found in lengths.items() if found.supervised},
        leaked=leaked,
        teacher=ModelSummary.of(models.teacher) if models.teacher else None,
        student=ModelSummary.of(models.student),
        file=file,
        run_memory=run_memory,
        disk=disk,
        memory=memory,
        warnings=warnings,
    )


def _measure(recipe: Recipe, models: Models, splits: Mapping[str, Sequence[Row]]) -> dict[str, Lengths]:
    """Lengths of every row as the teacher sees it; where the student sees it otherwise, that is checked too."""
    chats = [model.chat for model in (models.teacher, models.student) if model]
    if len(chats) == 2 and _identity(chats[0]) == _identity(chats[1]):
        chats.pop()
    found: dict[str, Lengths] = {}
    for chat in reversed(chats):
        for name, rows in splits.items():
            if name == "finetune" and chat is not chats[0]:
                continue
            new = None if name == "finetune" else recipe.generate.max_new_tokens
            # the rows of the validation split are the teacher's own validation too
            learnt = recipe.teacher.finetune is not None and name in ("finetune", "validation")
            found[name] = measure_rows(name, rows, chat, recipe.chat.context, new, learnt=learnt)
    return found


def _identity(chat: ChatFormat) -> tuple[Any, ...]:
    return chat.tokenizer_hash, chat.template_hash, chat.bos, chat.eos, chat.stop_ids


def _check_gates(recipe: Recipe, splits: Mapping[str, Sequence[Row]], warnings: list[str]) -> None:
    """Raise RecipeError for a gate that nothing in the test could ever decide."""
    gates, test = recipe.gates, splits["test"]
    judged = [row for row in test if is_judged(row)]
    advice = "so the gate could never be judged. Add such rows, or leave the gate out."
    for behaviour in gates.behaviours:
        if not any(row.behaviour == behaviour for row in judged):
            raise RecipeError(
                f"gates.behaviours.{behaviour}: {recipe.data.test} has no row of this behaviour that says what is "
                f"right, {advice}"
            )
    for name in ("exact", "retention", "quantization_drop", "beats_control"):
        if getattr(gates, name) not in (None, False) and not judged:
            raise RecipeError(
                f"gates.{name}: {recipe.data.test} has no row that says what is right (gold, or a completion), {advice}"
            )
    for name in ("kl_mean", "top1_agreement"):
        if getattr(gates, name) is not None and recipe.teacher.kind == "api":
            raise RecipeError(
                f"gates.{name}: an endpoint gives no whole distributions, so the gate could never be judged. Leave it "
                "out."
            )
    silent = len(test) - len(judged)
    if silent and judged:
        warnings.append(f"data.test: {silent} of {len(test)} rows do not say what is right, and are not judged.")


def _model_warnings(recipe: Recipe, models: Models) -> list[str]:
    """What is odd about the models, and not wrong."""
    teacher, student, out = models.teacher, models.student, []
    for model in (teacher, student):
        if model and model.parameters is None:
            out.append(f"{model.name}: its size is not known before its weights are here, and counts as nothing.")
    if teacher is None or recipe.student.model is None:
        return out
    if teacher.chat.template_hash != student.chat.template_hash:
        out.append(
            "chat.template: teacher and student have different templates; the teacher answers in its own, and is "
            "distilled over rows in the student's."
        )
    if teacher.chat.eos != student.chat.eos:
        out.append(f"student.model: it ends a turn with {student.chat.eos}, the teacher with {teacher.chat.eos}.")
    return out


def _licence_warnings(recipe: Recipe) -> list[str]:
    """What `potstill licences` says against shipping, while nothing is paid for."""
    keys = {
        # an endpoint elsewhere is judged by its own terms
        "teacher.license": None if judged_by_terms(recipe.teacher) else recipe.teacher.license,
        "student.license": recipe.student.license if recipe.student.init == "checkpoint" else None,
        "data.license": recipe.data.license,
        "package.license": recipe.package.license,
    }
    out, verdict = [], licence_verdict(recipe)
    if unknown := [key for key, value in keys.items() if value == "unknown"]:
        out.append(f"{', '.join(unknown)}: unknown. Say what the licences are; not every teacher may teach.")
    if verdict.problems:
        out.append(f"May it ship: {verdict.answer}. {' '.join(verdict.problems)}")
    elif not verdict.commercial:
        out.append(f"May it ship: {verdict.answer}, and not for business. `potstill licences` says why.")
    return out
