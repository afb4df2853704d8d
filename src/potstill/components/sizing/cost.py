"""What a distillation takes before it is begun: teacher tokens, training hours, disk. What it costs: `sizing.prices`.

Operations are counted as in Kaplan et al. (arXiv:2001.08361): 2 a parameter and token forward, 4 more backward.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.chat.trimming import kept_ids
from potstill.components.hardware.devices import Device
from potstill.components.models.recipe_models import Models
from potstill.components.sizing.needs import Disk, check_disk, check_file
from potstill.components.sizing.training_memory import checkpoint_bytes
from potstill.components.targets.meta import expected_bytes
from potstill.core.errors import DataError, RecipeError
from potstill.core.recipe import Recipe, Target
from potstill.core.records import Row, read_rows

__all__ = ["Kept", "Training", "Workload", "disk_needed", "kept_tokens", "training"]

_SAMPLE = 64
"""Rows of a file whose tokens are counted."""
_MOST = 5000
"""Rows of a file that are read for the tokens they use, in about a second."""
_FORWARD, _TRAINED = 2.0, 6.0
_NOT_IN_HOURS = (
    "writing an answer waits for memory more than for arithmetic, so what is generated is in neither operations nor "
    "hours"
)


@dataclass(frozen=True)
class Workload:
    """Rows that the teacher answers and the student learns from, and the mean tokens of one.

    answer_from      where the length of an answer was taken from, in words
    validation_rows  rows that the teacher answers too, for the validation curve
    finetune_tokens  of all rows that the teacher itself is trained on, once
    splits           the rows themselves: prompts, validation and test
    """

    rows: int
    prompt: float
    answer: float
    epochs: float
    answer_from: str = ""
    validation_rows: int = 0
    finetune_tokens: float = 0.0
    splits: Mapping[str, Sequence[Row]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, chat: ChatFormat) -> Workload:
        """Counted on a sample of the prompts; the answers' length is that of the answers in the test file, where it
        has some, and otherwise half of `generate.max_new_tokens`.

        Args:
            recipe: the recipe.
            chat: tokenizer and template of the teacher; of the student where the teacher is an endpoint.

        Raises:
            DataError: a file is absent or broken, or the chat template refuses a row.
        """
        splits, tuned = _read(recipe), 0.0
        answered = [row for row in _sample(splits["test"]) if row.completion]
        if answered:
            lengths = [_example(row, chat).n_supervised for row in answered]
            answer, origin = statistics.mean(lengths), "as in the test file"
        else:
            answer, origin = recipe.generate.max_new_tokens / 2, "half of generate.max_new_tokens"
        prompt = statistics.mean(len(_prompt_ids(row, chat)) for row in _sample(splits["prompts"]))
        if recipe.teacher.finetune:
            rows = read_rows(recipe.teacher.finetune.rows, tools=recipe.data.tools, need_completion=True)
            tuned = len(rows) * statistics.mean(len(_example(row, chat).ids) for row in _sample(rows))
        counts = len(splits["prompts"]), len(splits.get("validation", ()))
        return cls(counts[0], prompt, answer, recipe.train.epochs, origin, counts[1], tuned, splits)

    @property
    def tokens(self) -> float:
        """Of prompts and answers together, once."""
        return self.rows * (self.prompt + self.answer)

    @property
    def answered_rows(self) -> int:
        """Rows that the teacher answers, which is what an endpoint is paid for."""
        return self.rows + self.validation_rows


def _read(recipe: Recipe) -> dict[str, list[Row]]:
    """Rows by split, as the stages will read them."""
    data = recipe.data
    splits = {"prompts": read_rows(data.prompts, tools=data.tools, limit=data.limit)}
    if data.validation:
        splits["validation"] = read_rows(data.validation, tools=data.tools)
    return splits | {"test": read_rows(data.test, tools=data.tools, limit=data.test_limit)}


@contextmanager
def _told(row: Row) -> Iterator[None]:
    """Turn what the chat template says of a row into a DataError that names it."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{row.where}: {error}. Look at chat.template, or mend the row.") from None


def _example(row: Row, chat: ChatFormat) -> Example:
    with _told(row):
        return chat.example(row)


def _prompt_ids(row: Row, chat: ChatFormat) -> list[int]:
    with _told(row):
        return chat.prompt_ids(row)


def _whole_ids(row: Row, chat: ChatFormat) -> list[int]:
    """Ids of prompt and answer up to the end of the turn, in half the time of `ChatFormat.example`."""
    assert row.completion is not None
    with _told(row):
        ids = chat.encode(chat.render((*row.messages, row.completion), row.tools))
    return ids[: max((place + 1 for place, index in enumerate(ids) if index in chat.stop_ids), default=len(ids))]


def _sample(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[:: max(1, len(rows) // _SAMPLE)]


@dataclass(frozen=True)
class Kept:
    """Tokens of a vocabulary that is trimmed to the workload, as `counted` of its `rows` rows use them."""

    tokens: int
    counted: int
    rows: int

    @property
    def note(self) -> str | None:
        """A sentence where it was counted on a sample."""
        if self.counted == self.rows:
            return None
        return (
            f"student.vocabulary: about {self.tokens:,} tokens are kept, counted on {self.counted:,} of {self.rows:,} "
            "rows; the others will add some."
        )


def kept_tokens(recipe: Recipe, chat: ChatFormat) -> Kept:
    """What trimming (`chat.trimming`) keeps of the rows that will be trained on: prompts and validation, with
    their own answers for those that the teacher will give; for rows without, with the test file's.

    Args:
        recipe: the recipe.
        chat: tokenizer and template of the student.

    Raises:
        RecipeError: the tokenizer is of a kind that cannot be trimmed.
        DataError: a file is absent or broken, or the chat template refuses a row.
    """
    splits = _read(recipe)
    tokenizer = json.loads(chat.tokenizer.to_str())
    used = {chat.eos_id, *chat.stop_ids}
    learnt = [row for name in ("prompts", "validation") for row in _spread(splits.get(name, []))]
    for row in learnt:
        used.update(_whole_ids(row, chat) if row.completion else _prompt_ids(row, chat))
    if not all(row.completion for row in learnt):
        for row in _spread(splits["test"]):
            if row.completion:
                example = _example(row, chat)
                used.update(example.ids[example.n_prompt :])
    kept = kept_ids(tokenizer, used, f"the tokenizer of {recipe.student.model or recipe.teacher.model}")
    return Kept(len(kept), len(learnt), sum(len(splits.get(name, ())) for name in ("prompts", "validation")))


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    """All rows, or evenly spaced ones where they are very many."""
    return rows[:: -(-len(rows) // _MOST) or 1]


def disk_needed(
    recipe: Recipe, models: Models, work: Workload, notes: list[str], runs: Path = Path("runs")
) -> Disk | None:
    """Disk that the run fills, as `check` finds it; None where there is too little, and then `notes` say so.

    Args:
        recipe: the recipe.
        models: its models.
        work: its rows, as `Workload.of` read them.
        notes: sentences for the user; one may be added.
        runs: folder the run will be kept in.
    """
    # a file over target.file_mb is told where sizes are
    file = check_file(recipe.model_copy(update={"target": Target()}), models)
    try:
        return check_disk(recipe, models, work.splits, file, runs)
    except RecipeError as error:
        notes.append(str(error))
        return None


@dataclass(frozen=True)
class Training:
    """Operations and hours on the machine (low, high), and bytes of disk.

    parts             the operations by who takes them: student, control, teacher (its passes over rows), finetune
    left_out          operations of what the hours do not hold: answers of a local teacher, and the student's own
    checkpoint_bytes  of the student's checkpoints while it trains, and the models that are left
    target_bytes      of stored targets
    disk              what the whole run fills, where it was asked for
    """

    parts: Mapping[str, float]
    left_out: Mapping[str, float]
    hours: tuple[float, float]
    checkpoint_bytes: int
    target_bytes: int
    disk: Disk | None = None

    @property
    def operations(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())

    @property
    def disk_bytes(self) -> int:
        """The most that the run has on disk at a time; without `disk`, of the student's training alone."""
        return self.disk.needed if self.disk else self.checkpoint_bytes + self.target_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "operations": self.operations,
            "parts": dict(self.parts),
            "left_out": dict(self.left_out),
            "left_out_why": _NOT_IN_HOURS if self.left_out else None,
            "hours": [round(hours, 4) for hours in self.hours],
            "disk_bytes": self.disk_bytes,
            "disk_stays": self.disk.stays if self.disk else None,
            "target_bytes": self.target_bytes,
        }


def training(
    student: int, teacher: int, recipe: Recipe, work: Workload, machine: Device, vocab: int, disk: Disk | None = None
) -> Training:
    """What training a student takes, and with it its control (train.control), the teacher's passes over the rows
    (train.objective.targets) and the teacher's own training (teacher.finetune).

    Args:
        student: parameters.
        teacher: parameters of a local teacher; 0 for an endpoint.
        recipe: the recipe.
        work: rows and tokens.
        machine: where training runs; its rate is the sheet's, or what was measured, by the range of its efficiency.
        vocab: size of the teacher's vocabulary.
        disk: what the whole run fills (`disk_needed`), where this is the recipe's own student.
    """
    stored, learnt = recipe.stored_targets, work.tokens * work.epochs
    parts = {"student": _TRAINED * student * learnt}
    if recipe.train.has_control:
        parts["control"] = parts["student"]
    if teacher and recipe.train.objective.name != "sft":
        parts["teacher"] = _FORWARD * teacher * work.tokens * _passes(recipe, work)
    if teacher and recipe.teacher.finetune:
        parts["finetune"] = _TRAINED * teacher * work.finetune_tokens * recipe.teacher.finetune.epochs
    operations = sum(parts.values())
    low, high = (operations / (machine.compute * share) / 3600 for share in reversed(machine.compute_efficiency))
    targets = 0
    if stored is not None:
        targets = expected_bytes(stored.kind, round(work.rows * work.answer), vocab, stored.per_token)
    models = 2 if recipe.train.has_control else 1
    saved = 2 * checkpoint_bytes(student) + models * 4 * student
    return Training(parts, _left_out(student, teacher, recipe, work), (low, high), saved, targets, disk)


def _passes(recipe: Recipe, work: Workload) -> float:
    """Times that the teacher reads the rows: in each epoch, or once where its targets are stored."""
    if recipe.stored_targets is None:
        return work.epochs
    return 1.0 + (work.epochs if recipe.train.objective.hidden else 0.0)


def _left_out(student: int, teacher: int, recipe: Recipe, work: Workload) -> dict[str, float]:
    """Operations of all that is written one token after the other."""
    found, own = {}, recipe.train.objective.on_policy
    if teacher:
        found["teacher's answers"] = _FORWARD * teacher * work.answered_rows * (work.prompt + work.answer)
    if own:
        found["student's own answers"] = _FORWARD * student * own.share * work.tokens * work.epochs
    return found
