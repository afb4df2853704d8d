"""Everything that can be known about a language model's run before it is paid for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.reasoning import count_thinking
from potstill.components.checkers.golds import check_golds
from potstill.components.checkers.judge import is_judged
from potstill.components.checkers.turns import check_turns
from potstill.components.conversion.rules import export_notes, require_exportable
from potstill.components.curriculum.spec import Curriculum
from potstill.components.curriculum.steering import require_reachable
from potstill.components.licences.licences import is_hosted, licence_verdict, teacher_licences
from potstill.components.models.recipe_models import Model, Models, load_models
from potstill.components.packages.modelfile import modelfile_stops
from potstill.components.sizing.disk import disk_need, pending_download
from potstill.components.sizing.file_size import (
    file_size,
    require_file_size,
    require_served_memory,
    rows_warning,
    served_memory,
    vocabulary_warning,
)
from potstill.components.sizing.limits import device_warnings
from potstill.components.sizing.training_memory import memory_need
from potstill.components.sizing.workload import Split, Splits, read_splits
from potstill.core.artifacts.check import CheckResult, ModelSummary, Quantiles
from potstill.core.leakage import unrepeated_rows
from potstill.core.recipe import Recipe
from potstill.core.records import Row
from potstill.stages.check.gates import require_gates, unreachable_gates
from potstill.stages.check.leakage import find_leakage, validation_warning
from potstill.stages.check.lengths import Lengths, measure_rows
from potstill.stages.check.rendering import check_rendering, show_row
from potstill.stages.check.stored import require_stored
from potstill.stages.check.trial import missing_package, try_student

__all__ = ["check_recipe"]


def check_recipe(recipe: Recipe) -> CheckResult:
    """Check a recipe with its models, rows and budgets; nothing is trained, and nothing is written.

    Raises:
        RecipeError: a model, a budget or a gate does not fit; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    splits = read_splits(recipe)
    turns: list[str] = []
    for name, rows in splits.items():
        check_golds(rows)
        turns += check_turns("teacher.finetune.rows" if name == "finetune" else f"data.{name}", rows)
    if recipe.data.curriculum:
        require_reachable(Curriculum.read(recipe.data.curriculum), splits["prompts"], recipe.data.curriculum)
    models = load_models(recipe)
    require_stored(recipe, models)
    require_exportable(recipe, models.student)
    modelfile_stops(models.student.chat)
    file = file_size(recipe, models)
    require_file_size(recipe, models, file)
    served = served_memory(recipe, models, file)
    warnings = [require_served_memory(recipe, file, served)]
    require_gates(recipe, splits["test"])
    leakage = find_leakage(splits)
    lengths = _measure(recipe, models, splits)
    warnings += check_rendering(recipe, _chats(models), splits)
    scored = unrepeated_rows([row for row in splits["test"] if row.row_id not in leakage.row_ids])
    warnings += [*turns, _thinking(recipe, splits), _unjudged_rows(splits["test"]), *unreachable_gates(recipe, scored)]
    warnings += device_warnings(recipe, models, statistics.median(lengths["test"].prompt))
    warnings += [leakage.sentence and f"data.test: {leakage.sentence}", validation_warning(splits)]
    warnings += [rows_warning(recipe, models), vocabulary_warning(recipe, models)]
    warnings += _model_warnings(recipe, models) + _licence_warnings(recipe)
    warnings += [f"export: {note}." for note in export_notes(recipe, models.student)]
    missing = missing_package()
    trial = None if missing else try_student(recipe, models.student, (row for rows in splits.values() for row in rows))
    if missing:
        warnings.append(
            f"export: the student was not tried in llama.cpp, because {missing} is not installed, so export may fail "
            "after the training. To try it now: pip install 'potstill[run]'"
        )
    return CheckResult(
        name=recipe.name,
        rows={name: len(rows) for name, rows in splits.items()},
        prompt_tokens={name: Quantiles.of(found.prompt) for name, found in lengths.items()},
        supervised_tokens={name: Quantiles.of(found.supervised) for name, found in lengths.items() if found.supervised},
        shown=show_row(splits, models.student.chat),
        leaked=leakage.row_ids,
        teacher=_summary(models.teacher) if models.teacher else None,
        student=_summary(models.student),
        file=file,
        served_memory=served,
        disk=disk_need(recipe, models, splits),
        download=pending_download(models),
        memory=memory_need(recipe, models),
        trial=trial,
        warnings=tuple(warning for warning in warnings if warning),
    )


def _summary(model: Model) -> ModelSummary:
    return ModelSummary(
        name=model.name,
        architecture=model.spec.architecture if model.spec else str(model.config.get("model_type", "unknown")),
        parameters=model.parameters,
        layers=model.spec.layers if model.spec else model.config.get("num_hidden_layers"),
        vocab=model.chat.vocab_size,
        padded_vocab=model.padded_vocab,
    )


def _measure(recipe: Recipe, models: Models, splits: Splits) -> dict[Split, Lengths]:
    """Lengths of every row as the teacher sees it; where the student sees it differently, it is checked too."""
    chats = _chats(models)
    found: dict[Split, Lengths] = {}
    for chat in reversed(chats):
        for name, rows in splits.items():
            if name == "finetune" and chat is not chats[0]:
                continue
            new = None if name in ("finetune", "labelled") else recipe.generate.max_new_tokens
            trained = name in _trained_on_answers(recipe)
            found[name] = measure_rows(name, rows, chat, recipe.chat.context, new, trained=trained)
    return found


def _trained_on_answers(recipe: Recipe) -> tuple[Split, ...]:
    """Splits of which a model learns the rows' own answers."""
    # the validation split is also that of the teacher's own training
    return ("labelled", "finetune", "validation") if recipe.teacher.finetune else ("labelled",)


def _chats(models: Models) -> list[ChatFormat]:
    """The chat formats of teacher and student; only one where they are the same."""
    chats = [model.chat for model in (models.teacher, models.student) if model]
    if len(chats) == 2 and _identity(chats[0]) == _identity(chats[1]):
        chats.pop()
    return chats


def _identity(chat: ChatFormat) -> tuple[str, str, str | None, str, frozenset[int]]:
    return chat.tokenizer_hash, chat.template_hash, chat.bos, chat.eos, chat.stop_ids


def _thinking(recipe: Recipe, splits: Splits) -> str | None:
    """A sentence on the thinking in the answers that the teacher is trained on."""
    if "finetune" not in splits:
        return None
    if recipe.chat.reasoning == "drop":
        kept = recipe.chat.model_copy(update={"reasoning": "learn"})
        splits = read_splits(recipe.model_copy(update={"chat": kept}))
    thinking, rows = count_thinking(splits["finetune"]), len(splits["finetune"])
    done = "it is left out" if recipe.chat.reasoning == "drop" else "it is learnt"
    if not thinking:
        return None
    return (
        f"teacher.finetune.rows: {thinking} of {rows} answers have thinking; {done} "
        f"(chat.reasoning: {recipe.chat.reasoning})."
    )


def _unjudged_rows(test: Sequence[Row]) -> str | None:
    """A warning where some test rows do not say what is right, and others do."""
    silent = sum(not is_judged(row) for row in test)
    if silent in (0, len(test)):
        return None
    return f"data.test: {silent} of {len(test)} rows do not say what is right, and are not judged."


def _model_warnings(recipe: Recipe, models: Models) -> list[str]:
    """What is unusual about the models, and not wrong."""
    teacher, student, out = models.teacher, models.student, []
    for model in (teacher, student):
        if model and model.parameters is None:
            out.append(f"{model.name}: its size is unknown until it is downloaded, and counts as 0 until then.")
    if teacher is None or recipe.student.model is None:
        return out
    if teacher.chat.template_hash != student.chat.template_hash:
        out.append(
            "chat.template: teacher and student have different templates; the teacher answers in its own, and is "
            "distilled on rows in the student's."
        )
    if teacher.chat.eos != student.chat.eos:
        out.append(f"student.model: it ends a turn with {student.chat.eos}, the teacher with {teacher.chat.eos}.")
    return out


def _licence_warnings(recipe: Recipe) -> list[str]:
    """What `potstill licences` says against shipping, before anything is paid for."""
    unnamed = any(tag == "unknown" and not is_hosted(teacher) for teacher, tag in teacher_licences(recipe))
    keys = {
        # a hosted endpoint is judged by its own terms
        "licenses.teacher": "unknown" if unnamed else None,
        "licenses.student": recipe.license_of("student") if recipe.student.init == "checkpoint" else None,
        "licenses.data": recipe.license_of("data"),
        "licenses.package": recipe.license_of("package"),
    }
    out, verdict = [], licence_verdict(recipe)
    if unknown := [key for key, value in keys.items() if value == "unknown"]:
        out.append(
            f"{', '.join(unknown)}: unknown. State the licences; not every teacher's outputs may train a student."
        )
    if verdict.problems:
        out.append(f"May it ship: {verdict.answer}. {' '.join(verdict.problems)}")
    elif not verdict.commercial:
        out.append(f"May it ship: {verdict.answer}, for non-commercial use only. See `potstill licences`.")
    return out
