"""The stages of a recipe that distils a language model, in order:

    check -> finetune (if asked) -> generate -> targets (if stored) -> train
    -> export -> evaluate -> gate -> package -> report

Each function names what can change its stage's answer, beside the call: that is the step's fingerprint. A stage that a
recipe has none of gives None. See `potstill.pipeline.run` for how stages are run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from potstill.components.chat.format import resolve_model
from potstill.components.targets.meta import FORMAT
from potstill.core.hashing import hash_file
from potstill.core.recipe import Recipe
from potstill.pipeline.legacy import RunResult, StepPlan, hash_model, section_parts
from potstill.stages.check import stage as check
from potstill.stages.evaluate import stage as evaluate
from potstill.stages.export import stage as export
from potstill.stages.gate import stage as gate
from potstill.stages.generate import stage as generate
from potstill.stages.package import stage as package
from potstill.stages.report import stage as report
from potstill.stages.train import stage as train

__all__ = ["LANGUAGE_STAGES"]


def _hash(path: Path | None) -> str | None:
    return hash_file(path) if path else None


def _base_model(recipe: Recipe) -> Path | None:
    return resolve_model(recipe.student.model) if recipe.student.model else None


def _teacher_folder(recipe: Recipe, done: RunResult) -> Path | None:
    """Weights of the teacher: the fine-tuned one if there is one, None for an endpoint."""
    if recipe.teacher.kind == "api":
        return None
    return (
        done.folder("finetune") / "model"
        if "finetune" in done.steps
        else resolve_model(recipe.teacher.model, recipe.teacher.revision)
    )


def _finetune(recipe: Recipe, done: RunResult) -> StepPlan | None:
    settings = recipe.teacher.finetune
    if settings is None:
        return None
    base = resolve_model(recipe.teacher.model, recipe.teacher.revision, weights=settings.shape is None)
    parts = {
        "version": train.VERSION,
        "settings": settings.hashed_values(),
        "trainer": recipe.trainer.hashed_values(),
        "saved_in": recipe.local_teacher.saved_dtype,
        "rows": hash_file(settings.rows),
        "validation": _hash(recipe.data.validation),
        "tools": _hash(recipe.data.tools),
        "base": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    return parts, (), partial(train.finetune, recipe, base)


def _chat(recipe: Recipe) -> dict[str, Any]:
    """Template settings; a template file counts by its content."""
    file = Path(recipe.chat.template)
    return section_parts(recipe.chat, "template", "tool_format") | {
        "template": hash_file(file) if file.is_file() else recipe.chat.template
    }


def _generate(recipe: Recipe, done: RunResult) -> StepPlan:
    folder, base = _teacher_folder(recipe, done), _base_model(recipe)
    parts = {
        "version": generate.VERSION,
        "settings": section_parts(recipe.generate),
        "prompts": hash_file(recipe.data.prompts),
        "limit": recipe.data.limit,
        "validation": _hash(recipe.data.validation),
        "tools": _hash(recipe.data.tools),
        "teacher": recipe.teacher.hashed_values(),
        "weights": hash_model(folder) or recipe.teacher.model,
        # rows that the student could not read whole are set aside
        "reader": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    if recipe.requested_logprobs:
        parts["log_probs"] = recipe.requested_logprobs
    return parts, ("finetune",), partial(generate.run, recipe, folder, base)


def _targets(recipe: Recipe, done: RunResult) -> StepPlan | None:
    if recipe.stored_targets is None:
        return None
    folder, base = _teacher_folder(recipe, done), _base_model(recipe)
    parts = {
        "version": train.VERSION,
        "format": FORMAT,
        "settings": recipe.stored_targets.hashed_values(),
        "temperature": recipe.train.objective.temperature,
        "weights": hash_model(folder) or recipe.teacher.model,
        "dtype": getattr(recipe.teacher, "dtype", None),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    upstream, generated = ("finetune", "generate"), done.folder("generate")
    if folder is not None:
        return parts, upstream, partial(train.store_targets, recipe, folder, generated)
    assert base is not None  # the recipe has no endpoint without student.model
    parts["reader"] = hash_model(base)
    return parts, upstream, partial(train.store_served_targets, recipe, base, generated)


def _train(recipe: Recipe, done: RunResult) -> StepPlan:
    folder, base = _teacher_folder(recipe, done), _base_model(recipe)
    targets = done.folder("targets") if "targets" in done.steps else None
    parts = {
        "version": train.VERSION,
        "settings": recipe.train.hashed_values(),
        "trainer": recipe.trainer.hashed_values(),
        "student": recipe.student.hashed_values(),
        "base": hash_model(base),
        "chat": _chat(recipe),
        "seed": recipe.seed,
    }
    upstream = ("finetune", "generate", "targets")
    return parts, upstream, partial(train.run, recipe, folder, base, done.folder("generate"), targets)


LANGUAGE_STAGES: dict[str, Any] = {
    "check": check.STAGE, "finetune": _finetune, "generate": _generate, "targets": _targets, "train": _train,
    "export": export.STAGE, "evaluate": evaluate.STAGE, "gate": gate.STAGE, "package": package.STAGE,
    "report": report.STAGE,
}  # fmt: skip
