"""`potstill search MODEL|RECIPE`: the students that a device can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from potstill.apps.plan.candidates import (
    QUANTIZATIONS,
    Candidate,
    Goal,
    fastest_of_each_size,
    feasible_candidates,
    teacher_quantizations,
)
from potstill.apps.plan.options import (
    DEFAULT_CONTEXT,
    ServingOptions,
    chosen_quantizations,
    require_context,
    require_positive,
)
from potstill.components.chat.format import ChatFormat, ChatSettings
from potstill.components.hardware.devices import Device, find_device, load_devices
from potstill.components.models.architectures import not_prunable
from potstill.components.models.configs import from_config
from potstill.components.models.derived import shape_config
from potstill.components.models.folder import resolve_model
from potstill.components.models.source import load_config
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing.cost import Size, Training, training
from potstill.components.sizing.limits import Limits
from potstill.components.sizing.workload import Workload, kept_tokens
from potstill.core.errors import PotstillError, UsageError
from potstill.core.files import read_json_object
from potstill.core.format import format_size
from potstill.core.recipe import Quantization, Recipe, Target

__all__ = ["Measured", "SearchOptions", "SearchResult", "StudentRow", "search_students"]

_SHOWN = 12
_PROMPT = 512
"""Tokens of a prompt where no recipe says how long prompts are."""
_BYTES = 256
"""Tokens that a vocabulary needs to write any text: one for each byte."""


@dataclass(frozen=True)
class SearchOptions(ServingOptions):
    """Options of `potstill search`: one device at most; default: the recipe's, or this machine, probed quickly.

    decode          slowest decoding, in tokens per second; default: the recipe's limit
    ttft            longest time to the first token, in milliseconds; default: the recipe's limit
    vocabulary      number of tokens to keep; default: as the recipe says
    quantizations   of the students
    train_on        device that trains, for the hours (recipe only); default: this machine, probed quickly
    write           row or id of the student that goes into the recipe (recipe only)

    Raises:
        UsageError: a number is not positive and finite, or a vocabulary has fewer tokens than there are bytes.
    """

    decode: float | None = None
    ttft: float | None = None
    vocabulary: int | None = None
    quantizations: tuple[str, ...] = ()
    train_on: str | None = None
    write: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("--decode", self.decode)
        require_positive("--ttft", self.ttft)
        require_positive("--vocabulary", self.vocabulary)
        self.require_vocabulary()

    def require_recipe(self) -> None:
        """Raise UsageError for options that need a recipe."""
        for option, value in {"--train-on": self.train_on, "--write": self.write}.items():
            if value is not None:
                raise UsageError(f"{option} needs a recipe (.yaml). Give one in place of the model, or leave it out.")

    def require_vocabulary(self, added: int = 0, most: int | None = None) -> None:
        """Raise UsageError for a vocabulary that no student can have.

        Args:
            added: tokens of the tokenizer that are never trimmed, such as those that end a turn.
            most: tokens of the teacher.
        """
        if self.vocabulary is None:
            return
        if self.vocabulary < _BYTES + added:
            extra = f" and {added} added ones" if added else ""
            raise UsageError(
                f"--vocabulary {self.vocabulary}: a trimmed vocabulary keeps {_BYTES} tokens for single bytes{extra}: "
                f"give {_BYTES + added} or more."
            )
        if most is not None and self.vocabulary > most:
            raise UsageError(
                f"--vocabulary {self.vocabulary}: the teacher has {most:,} tokens, and a vocabulary is only ever "
                "trimmed. Give fewer, or leave the option out to keep them all."
            )


@dataclass(frozen=True)
class StudentRow:
    """A student in the result; speeds are ranges (low, high).

    student    keys of a recipe's `student` section
    kept       its parameters over the teacher's, without embeddings
    training   what making it takes, with a recipe
    """

    row: int | None
    id: str
    origin: str
    shape: str
    quantization: str
    student: Mapping[str, Any]
    parameters: int
    kept: float
    weight_bytes: int
    bits_per_weight: float
    file_bytes: int
    needed_bytes: int
    total_bytes: int
    decode_tokens_per_s: tuple[float, float]
    ttft_seconds: tuple[float, float]
    quality_band: str
    training: Training | None = None


@dataclass(frozen=True)
class Measured:
    """A student after a short training.

    id          the student's id in the search's result, without the quantization
    kept        its parameters over the teacher's, without embeddings
    parameters  their number, embeddings included
    loss        lowest loss on validation rows, in nats per supervised token
    steps       number of optimizer steps
    seconds     of the training, wall clock
    """

    id: str
    kept: float
    parameters: int
    loss: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """The students that a device can run.

    vocabulary       size of the trimmed vocabulary; None keeps all tokens
    teacher_itself   quantizations in which the teacher itself meets the limits
    feasible         number of students that do
    students         those that no student of higher value outruns
    shown            rows for a short table
    written          the student that `write` chose
    measured         students that were trained for a short time, that with the lowest loss first
    """

    teacher: str
    device: str
    usable_bytes: int
    context: int
    limits: Limits
    vocabulary: int | None
    train_on: str | None
    teacher_itself: tuple[str, ...]
    feasible: int
    students: tuple[StudentRow, ...]
    shown: tuple[int, ...]
    written: StudentRow | None
    notes: tuple[str, ...]
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class _Setting:
    """The teacher, what its students must meet, and, with a recipe, what they are trained on."""

    config: Mapping[str, Any]
    teacher: ModelSpec
    goal: Goal
    vocabulary: int | None = None
    recipe: Recipe | None = None
    work: Workload | None = None
    machine: Device | None = None
    notes: list[str] = field(default_factory=list)

    def row(self, one: Candidate, number: int | None = None) -> StudentRow:
        """A candidate in the result."""
        spent = None
        if self.recipe and self.work and self.machine:
            student, teacher = (Size(spec.parameters, spec.layers) for spec in (one.spec, self.teacher))
            spent = training(student, teacher, self.recipe, self.work, self.machine, self.teacher.vocab)
        decode, ttft = one.speed.decode, one.ttft
        return StudentRow(
            row=number,
            id=one.id,
            origin=one.origin,
            shape=one.shape,
            quantization=one.spec.quantization or "",
            student=dict(one.student),
            parameters=one.spec.parameters,
            kept=round(one.kept, 4),
            weight_bytes=one.spec.weight_bytes,
            bits_per_weight=round(one.spec.bits_per_weight, 4),
            file_bytes=one.memory.weights,
            needed_bytes=one.memory.needed,
            total_bytes=one.memory.total,
            decode_tokens_per_s=(round(decode[0], 3), round(decode[1], 3)),
            ttft_seconds=(round(ttft[0], 4), round(ttft[1], 4)),
            quality_band=one.band,
            training=spent,
        )


def search_students(recipe: Recipe | None, model: str, options: SearchOptions | None = None) -> SearchResult:
    """The students cut from a teacher, and known small models, that a device can run within limits.

    Args:
        recipe: gives teacher, chat.context and target where no option does, and the rows that are trained on.
        model: the teacher where there is no recipe: see `load_config`.
        options: a time to the first token is that after a prompt of the recipe's mean length; without a recipe, after
            512 tokens or half of the context.

    Raises:
        UsageError: an option is wrong, a device is not known, students cannot be cut from the teacher, or no student
            meets the limits.
    """
    options = options or SearchOptions()
    if recipe is None:
        options.require_recipe()
    known, note = get_args(Quantization), ", in which students can be exported"
    quantizations = chosen_quantizations(options.quantizations, known, note) or QUANTIZATIONS
    setting = _setting(recipe, model, options)
    found = feasible_candidates(
        setting.config,
        setting.goal,
        vocabulary=setting.vocabulary,
        same_tokenizer=recipe is not None and recipe.same_tokenizer_key is not None,
        quantizations=quantizations,
    )
    if not found:
        raise UsageError(_nothing_found(setting.goal))
    ahead = fastest_of_each_size(found, gain=1.0)
    written = None if options.write is None else _written(options.write, found, ahead, setting.goal)
    return SearchResult(
        teacher=recipe.teacher.model if recipe else model,
        device=setting.goal.device.name,
        usable_bytes=setting.goal.device.usable_bytes,
        context=setting.goal.serving.context,
        limits=setting.goal.limits,
        vocabulary=setting.vocabulary,
        train_on=setting.machine.name if setting.machine else None,
        teacher_itself=tuple(teacher_quantizations(setting.config, setting.goal, quantizations)),
        feasible=len(found),
        students=tuple(setting.row(one, number) for number, one in enumerate(ahead, 1)),
        shown=_shown(ahead),
        written=setting.row(written) if written else None,
        notes=tuple(setting.notes),
    )


def _setting(recipe: Recipe | None, model: str, options: SearchOptions) -> _Setting:
    """The setting of a search; the machine is probed, and rows are read, after everything else has been checked."""
    chat = _teacher_chat(recipe) if recipe else None
    config = _teacher_config(recipe, model, chat)
    teacher = from_config(config, "the teacher")
    options.require_vocabulary(len(chat.tokenizer.get_added_tokens_decoder()) if chat else 0, teacher.vocab)
    default = recipe.chat.context if recipe else min(DEFAULT_CONTEXT, teacher.context or DEFAULT_CONTEXT)
    serving = options.serving(default)
    option = "chat.context" if options.context is None else "--context"
    require_context(serving.context, teacher.context, "the teacher", option)
    target = recipe.target if recipe else Target()
    device = options.one_device(target.device) or options.all_devices()[0]
    if not (recipe and chat):
        limits = _limits(target, min(_PROMPT, serving.context // 2), options)
        return _Setting(config, teacher, Goal(device, serving, limits), options.vocabulary)
    machine = find_device(options.train_on or "this", quick=True, option="--train-on")
    work, vocabulary, notes = Workload.of(recipe, chat), options.vocabulary, list[str]()
    if vocabulary is None and recipe.student.vocabulary == "workload":
        kept = kept_tokens(recipe, chat)
        vocabulary, notes = kept.tokens, [kept.note] if kept.note else []
    goal = Goal(device, serving, _limits(target, work.prompt, options))
    return _Setting(config, teacher, goal, vocabulary, recipe, work, machine, notes)


def _teacher_chat(recipe: Recipe) -> ChatFormat:
    teacher = recipe.teacher
    if teacher.kind != "local":
        raise UsageError(
            "students are cut from a teacher with weights, and this recipe's teacher is behind an endpoint. Search "
            "with the config.json of a model of the size that you would like as teacher, in place of the recipe."
        )
    return ChatSettings.of(recipe.chat).load(resolve_model(teacher.model, weights=False))


def _teacher_config(recipe: Recipe | None, model: str, chat: ChatFormat | None) -> dict[str, Any]:
    """The teacher's config.json; with teacher.finetune.shape, the one that it will have."""
    if recipe and chat:
        tuned = recipe.teacher.finetune
        if tuned and tuned.shape:
            return shape_config(tuned.shape, chat.vocab_size, recipe.chat.context)
        model = str(resolve_model(recipe.teacher.model, weights=False))
    try:
        return load_config(model)
    except UsageError:
        # the message about an unknown class is of no use to somebody who searches for a student
        kind = _class_of(Path(model).expanduser())
        problem = kind and not_prunable(kind)
        if not problem:
            raise
        raise UsageError(problem) from None


def _class_of(path: Path) -> str | None:
    """The class that a config.json, or a folder's, names; None where there is none."""
    with suppress(PotstillError, TypeError, LookupError):
        return str(read_json_object(path / "config.json" if path.is_dir() else path)["architectures"][0])
    return None


def _limits(target: Target, prompt: float, options: SearchOptions) -> Limits:
    """The recipe's limits, replaced by those of the command line."""
    limits = Limits.of(target, prompt)
    decode = limits.decode if options.decode is None else options.decode
    return replace(limits, decode=decode, ttft=limits.ttft if options.ttft is None else options.ttft / 1000)


def _nothing_found(goal: Goal) -> str:
    limits, serving = goal.limits, goal.serving
    needs = [f"{format_size(goal.device.usable_bytes)} of memory at a context of {serving.context:,} tokens"]
    needs += [f"a KV cache in {serving.kv_type}"] if serving.kv_type != "f16" else []
    needs += [f"{limits.decode:g} tokens/s"] if limits.decode is not None else []
    if limits.ttft is not None:
        needs.append(f"{limits.ttft * 1000:g} ms to the first token after a prompt of {limits.prompt:,} tokens")
    needs += [f"a file of {format_size(limits.file_bytes)}"] if limits.file_bytes is not None else []
    needs += [f"{format_size(limits.peak_bytes)} at the peak"] if limits.peak_bytes is not None else []
    return (
        f"{goal.device.name}: no student that can be cut from this teacher, and no known small model, meets "
        f"{', '.join(needs)}. Relax a limit, give more memory (--memory), or train a student from scratch "
        "(student.init: scratch)."
    )


def _shown(ahead: Sequence[Candidate]) -> tuple[int, ...]:
    """Rows of a short table: from the best to the fastest, with gains in speed that leave few of them."""
    gain = 1.1
    while len(rows := fastest_of_each_size(ahead, gain)) > _SHOWN:
        gain *= 1.05
    return tuple(ahead.index(one) + 1 for one in rows)


def _written(choice: str, found: Sequence[Candidate], ahead: Sequence[Candidate], goal: Goal) -> Candidate:
    """The student that --write names by its id, or by its row where rows do not change from one call to the next."""
    if not choice.isdecimal():
        named = next((one for one in found if one.id.lower() == choice.lower()), None)
        if named:
            return named
        raise UsageError(
            f"--write {choice!r}: none of the {len(found):,} students that meet the limits on {goal.device.name} has "
            f"this id. Give an id from the table, such as {ahead[0].id}."
        )
    if not any(device.name == goal.device.name for device in load_devices()):
        raise UsageError(
            f"--write {choice}: rows change with what is measured on this machine. Give the student's id, such as "
            f"{ahead[0].id}, or name a device of the list (--device, target.device)."
        )
    if not 1 <= int(choice) <= len(ahead):
        raise UsageError(f"--write {choice}: there are rows 1 to {len(ahead)}; --json lists them all.")
    return ahead[int(choice) - 1]
