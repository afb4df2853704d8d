"""`potstill plan RECIPE|MODEL --search`: the students that a device can run, and one of them into a recipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from potstill.apps.plan.options import Ask, Wanted, chosen_quantizations, refuse_context
from potstill.apps.plan.search import QUANTIZATIONS, Candidate, Goal, frontier, search, whole_teacher
from potstill.components.chat.format import ChatFormat, load_chat, resolve_model
from potstill.components.hardware.devices import Device, find_device, load_devices
from potstill.components.hardware.fit import Serving
from potstill.components.models.architectures import not_prunable
from potstill.components.models.configs import from_config
from potstill.components.models.derived import shape_config
from potstill.components.models.source import load_config
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing import cost
from potstill.components.sizing.limits import Limits
from potstill.core.errors import DataError, RecipeError, UsageError
from potstill.core.files import read_json_object, replacing
from potstill.core.format import format_count, format_size
from potstill.core.recipe import Quantization, Recipe, Target, load_recipe

__all__ = ["choose", "write_choice"]

_CONTEXT = 4096
_SHOWN = 12
_PROMPT = 512
"""Tokens of a prompt where no recipe says what prompts are like."""


def choose(recipe: Recipe | None, model: str, ask: Ask, wanted: Wanted | None = None) -> dict[str, Any]:
    """Students cut from a teacher, and known small models, that a device can run as asked.

    Args:
        recipe: whose teacher, chat.context and target count where none is given here, and whose rows are trained on.
        model: the teacher where there is no recipe, as of `load_config`.
        ask: one device at most; where none is given the recipe's, or this machine, probed quickly.
        wanted: limits over the recipe's. A time to the first token is that after a prompt of the recipe's mean length,
            without a recipe of 512 tokens or half the context. The vocabulary is counted where the recipe trims the
            student's (student.vocabulary).

    Returns:
        With all students that no better one outruns (`students`), and, where `wanted.write` asks for one, that one
        (`written`).

    Raises:
        UsageError: an option cannot be met as it is asked, a device is not known, students cannot be cut from the
            teacher, or no student meets what is asked.
    """
    wanted = wanted or Wanted()
    asked = chosen_quantizations(wanted.quantizations, get_args(Quantization), ", which students are written in")
    types = asked or QUANTIZATIONS
    setting = _setting(recipe, model, ask, wanted)
    goal, teacher = setting.goal, setting.teacher
    same = recipe is not None and recipe.same_tokenizer_key is not None
    found = search(setting.config, goal, vocabulary=setting.vocabulary, same_tokenizer=same, quantizations=types)
    if not found:
        raise UsageError(_nothing(goal))
    ahead = frontier(found, gain=1.0)
    chosen = _written(wanted.write, found, ahead, goal) if wanted.write is not None else None

    def row(one: Candidate) -> dict[str, Any]:
        if not (recipe and setting.work and setting.machine):
            return one.to_json()
        sizes = one.spec.parameters, teacher.parameters
        spent = cost.training(*sizes, recipe, setting.work, setting.machine, teacher.vocab)
        return {**one.to_json(), "training": spent.to_json()}

    return {
        "teacher": recipe.teacher.model if recipe else model,
        "device": goal.device.name,
        "usable_bytes": goal.device.usable_bytes,
        "context": goal.serving.context,
        "limits": asdict(goal.limits),
        "vocabulary": setting.vocabulary,
        "train_on": setting.machine.name if setting.machine else None,
        "teacher_itself": whole_teacher(setting.config, goal, types),
        "feasible": len(found),
        "students": [{"row": number, **row(one)} for number, one in enumerate(ahead, 1)],
        "shown": _shown(ahead),
        "written": row(chosen) if chosen else None,
        "notes": setting.notes,
    }


@dataclass(frozen=True)
class _Setting:
    """The teacher, what its students must meet, and, with a recipe, what they are trained on."""

    config: Mapping[str, Any]
    teacher: ModelSpec
    goal: Goal
    vocabulary: int | None = None
    work: cost.Workload | None = None
    machine: Device | None = None
    notes: list[str] = field(default_factory=list)


def _setting(recipe: Recipe | None, model: str, ask: Ask, wanted: Wanted) -> _Setting:
    """See `choose`; the machine is probed, and rows are read, when everything else is known to be sound."""
    chat = _teacher_chat(recipe) if recipe else None
    config = _teacher_config(recipe, model, chat)
    teacher = from_config(config, "the teacher")
    wanted.require_vocabulary(len(chat.tokenizer.get_added_tokens_decoder()) if chat else 0, teacher.vocab)
    serving = ask.serving(recipe.chat.context if recipe else min(_CONTEXT, teacher.context or _CONTEXT))
    refuse_context(
        serving.context, teacher.context, "the teacher", "chat.context" if ask.context is None else "--context"
    )
    target = recipe.target if recipe else Target()
    device = ask.one_device(target.device) or ask.all_devices()[0]
    if not (recipe and chat):
        return _Setting(
            config, teacher, Goal(device, serving, _limits(target, None, serving, wanted)), wanted.vocabulary
        )
    machine = find_device(wanted.train_on, quick=True, option="--train-on")
    work, vocabulary, notes = cost.Workload.of(recipe, chat), wanted.vocabulary, list[str]()
    if vocabulary is None and recipe.student.vocabulary == "workload":
        kept = cost.kept_tokens(recipe, chat)
        vocabulary, notes = kept.tokens, [kept.note] if kept.note else []
    goal = Goal(device, serving, _limits(target, work, serving, wanted))
    return _Setting(config, teacher, goal, vocabulary, work, machine, notes)


def _teacher_chat(recipe: Recipe) -> ChatFormat:
    teacher = recipe.teacher
    if teacher.kind == "api":
        raise UsageError(
            "--search: students are cut from a teacher with weights, and this recipe's is behind an endpoint. Give the "
            "config.json of a model of the size that you would like as teacher, in place of the recipe."
        )
    return load_chat(resolve_model(teacher.model, teacher.revision, weights=False), recipe.chat.template)


def _teacher_config(recipe: Recipe | None, model: str, chat: ChatFormat | None) -> dict[str, Any]:
    """The teacher's config.json; of one that the recipe trains from scratch (teacher.finetune.shape), its shape's."""
    if recipe and chat:
        tuned = recipe.teacher.finetune
        if tuned and tuned.shape:
            return shape_config(tuned.shape, chat.vocab_size, recipe.chat.context)
        model = str(resolve_model(recipe.teacher.model, recipe.teacher.revision, weights=False))
    try:
        return load_config(model)
    except UsageError:
        # what `plan` says of a class that it does not know helps nobody who searches
        kind = _class_of(Path(model).expanduser())
        problem = kind and not_prunable(kind)
        if not problem:
            raise
        raise UsageError(problem) from None


def _class_of(path: Path) -> str | None:
    """Class that a config.json, or a folder's, names; None where there is none."""
    with suppress(DataError, TypeError, LookupError):
        return str(read_json_object(path / "config.json" if path.is_dir() else path)["architectures"][0])
    return None


def _limits(target: Target, work: cost.Workload | None, serving: Serving, wanted: Wanted) -> Limits:
    """The recipe's limits, and over them what the command line asks."""
    asked = Limits.of(target, work.prompt if work else min(_PROMPT, serving.context // 2))
    decode = asked.decode if wanted.decode is None else wanted.decode
    return replace(asked, decode=decode, ttft=asked.ttft if wanted.ttft is None else wanted.ttft / 1000)


def _nothing(goal: Goal) -> str:
    asked = [
        f"{format_size(goal.device.usable_bytes)} of memory at a context of "
        f"{format_count(goal.serving.context, 'token')}"
    ]
    limits = goal.limits
    asked += [f"a KV cache in {goal.serving.kv_type}"] if goal.serving.kv_type != "f16" else []
    asked += [f"{limits.decode:g} tokens/s"] if limits.decode is not None else []
    if limits.ttft is not None:
        prompt = format_count(limits.prompt, "token")
        asked.append(f"{limits.ttft * 1000:g} ms to the first token after a prompt of {prompt}")
    asked += [f"a file of {format_size(limits.file_bytes)}"] if limits.file_bytes is not None else []
    asked += [f"{format_size(limits.peak_bytes)} at the peak"] if limits.peak_bytes is not None else []
    return (
        f"{goal.device.name}: no student that can be cut from this teacher, and no known small model, meets "
        f"{', '.join(asked)}. Ask for less, give it more memory (--memory), or train one from scratch "
        "(student.init: scratch)."
    )


def _shown(ahead: Sequence[Candidate]) -> list[int]:
    """Rows of the table: from the best to the fastest, each so much faster than the one before that they are few."""
    gain = 1.1
    while len(rows := frontier(ahead, gain)) > _SHOWN:
        gain *= 1.05
    return [ahead.index(one) + 1 for one in rows]


def _written(asked: str, found: Sequence[Candidate], ahead: Sequence[Candidate], goal: Goal) -> Candidate:
    """The student that --write names by its id, or by its row where rows do not move from one call to the next."""
    if not asked.isdecimal():
        named = next((one for one in found if one.id.lower() == asked.lower()), None)
        if named:
            return named
        raise UsageError(
            f"--write {asked!r}: of the {format_count(len(found), 'student')} that meet what is asked on "
            f"{goal.device.name}, none has that id. Give one as the table has it, such as {ahead[0].id}."
        )
    if not any(device.name == goal.device.name for device in load_devices()):
        raise UsageError(
            f"--write {asked}: rows move with what is measured of this machine. Give the student's id, such as "
            f"{ahead[0].id}, or name a device of the list (--device, target.device)."
        )
    if not 1 <= int(asked) <= len(ahead):
        raise UsageError(f"--write {asked}: there are rows 1 to {len(ahead)}; --json lists them all.")
    return ahead[int(asked) - 1]


def write_choice(path: Path, row: Mapping[str, Any]) -> None:
    """Put a student and its quantization into a recipe, whole or not at all; the text of other sections stays.

    Raises:
        RecipeError: the recipe would not be valid, or its sections cannot be told apart line by line.
        UsageError: the file or its folder cannot be written to.
    """
    file = path.resolve()
    before = file.read_bytes().decode("utf-8")
    old = yaml.safe_load(before)
    was = old.get("student") or {}
    # how layers are chosen holds for another number of them too
    same = was.get("init", "teacher_layers") == row["student"]["init"] == "teacher_layers"
    kept = {"layer_choice": was["layer_choice"]} if same and "layer_choice" in was else {}
    new = {
        "student": {**row["student"], **kept},
        "export": {**(old.get("export") or {}), "quantization": row["quantization"]},
    }
    text = _rewritten(before, new, path)
    if not file.stat().st_mode & 0o222 or not os.access(file, os.W_OK):
        raise UsageError(f"--write: {path} is read-only, and was left as it is. Make it writable, or copy the recipe.")
    try:
        with replacing(file) as draft:  # beside the recipe, whose paths are relative to its folder
            draft.write_bytes(text.encode("utf-8"))
            _require_written(draft, path, {**old, **new})
            shutil.copymode(file, draft)
    except OSError as error:
        raise UsageError(
            f"--write: {path} cannot be written ({error.strerror or error}), and was left as it is. Make its folder "
            "writable, or copy the recipe."
        ) from None


def _require_written(draft: Path, path: Path, wanted: Mapping[str, Any]) -> None:
    """Raise RecipeError unless a draft is a valid recipe that says what is wanted, and nothing else."""
    try:
        load_recipe(draft)
    except UsageError as error:
        said = str(error).replace(str(draft), str(path))
        raise RecipeError(
            f"--write: with this student the recipe is not valid, and was left as it is. {said}"
        ) from None
    if yaml.safe_load(draft.read_text(encoding="utf-8")) != dict(wanted):
        raise RecipeError(_unclear(path, "student"))


def _unclear(path: Path, name: str) -> str:
    return (
        f"--write: {path}: where section {name} begins and ends cannot be told for certain, so the recipe was left as "
        "it is. Write each section once, from the first column on, one key a line, without anchors; or write the row "
        "into it by hand."
    )


def _rewritten(text: str, sections: Mapping[str, Mapping[str, Any]], path: Path) -> str:
    """The YAML text with top-level sections written anew, or added at its end.

    Raises:
        RecipeError: a section cannot be found for certain.
    """
    root, newline = yaml.compose(text), "\r\n" if "\r\n" in text else "\n"
    edits = []
    for name, values in sections.items():
        start, stop = _lines_of(root, name, text, path)
        written = yaml.safe_dump({name: dict(values)}, sort_keys=False).replace("\n", newline)
        apart = newline if start == len(text) else ""
        if apart and not text.endswith("\n"):
            apart += newline
        edits.append((start, stop, apart + written))
    for start, stop, written in sorted(edits, reverse=True):
        text = text[:start] + written + text[stop:]
    return text


def _lines_of(root: yaml.Node | None, name: str, text: str, path: Path) -> tuple[int, int]:
    """Where a section's lines begin and end; both at the end of the text for one that is not there.

    Raises:
        RecipeError: that is not certain.
    """
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise RecipeError(_unclear(path, name))
    pairs = [(key, value) for key, value in root.value if key.value == name]
    if not pairs:
        return len(text), len(text)
    (key, value), *others = pairs
    end, marked = _end(value), text.startswith(("&", "!"), value.start_mark.index)
    # an alias is where its anchor is
    if others or marked or key.start_mark.column or end < key.end_mark.index:
        raise RecipeError(_unclear(path, name))
    stop = text.find("\n", end)
    return key.start_mark.index, len(text) if stop < 0 else stop + 1


def _end(node: yaml.Node) -> int:
    """Where a value ends: a block has no end of its own, and takes in the comments after it. -1 for text in a block."""
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return -1
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
