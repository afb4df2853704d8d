"""What a distillation takes before it is begun: teacher tokens, training hours, disk. What it costs: `potstill.costs`.

Operations are counted as in Kaplan et al. (arXiv:2001.08361): 2 a parameter and token forward, 4 more backward.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from potstill.chat import ChatFormat
from potstill.plan.arithmetic import checkpoint_bytes
from potstill.plan.devices import Device
from potstill.recipe import Recipe
from potstill.records import Row, read_rows, read_tools
from potstill.targets.meta import expected_bytes

__all__ = ["Training", "Workload", "training", "used_tokens"]

_SAMPLE = 64
"""Rows of a file whose tokens are counted."""
_READ = 2000
"""Rows of a file that are read for the tokens they use."""
_BYTES = 256


@dataclass(frozen=True)
class Workload:
    """Rows that the teacher answers and the student learns from, and the mean tokens of one.

    answer_from    where the length of an answer was taken from, in words
    """

    rows: int
    prompt: float
    answer: float
    epochs: float
    answer_from: str = ""

    @classmethod
    def of(cls, recipe: Recipe, chat: ChatFormat) -> Workload:
        """Counted on a sample of the prompts; the answers' length is that of the answers in the test file, where it
        has some, and otherwise half of `generate.max_new_tokens`.

        Args:
            recipe: the recipe.
            chat: tokenizer and template of the teacher; of the student where the teacher is an endpoint.

        Raises:
            DataError: a file is absent or broken.
        """
        data, tools = recipe.data, read_tools(recipe.data.tools) if recipe.data.tools else ()
        prompts = read_rows(data.prompts, tools=tools, limit=data.limit)
        answered = [row for row in _sample(read_rows(data.test, tools=tools, limit=data.test_limit)) if row.completion]
        if answered:
            answer, origin = statistics.mean(chat.example(row).n_supervised for row in answered), "as in the test file"
        else:
            answer, origin = recipe.generate.max_new_tokens / 2, "half of generate.max_new_tokens"
        prompt = statistics.mean(len(chat.prompt_ids(row)) for row in _sample(prompts))
        return cls(len(prompts), prompt, answer, recipe.train.epochs, origin)

    @property
    def tokens(self) -> float:
        """Of prompts and answers together, once."""
        return self.rows * (self.prompt + self.answer)


def used_tokens(recipe: Recipe, chat: ChatFormat) -> int:
    """Tokens that a vocabulary trimmed to the workload keeps, a little under what it will be: those of prompts and of
    the test file's answers, single bytes and added tokens; what merges pass through on the way comes to them later."""
    data, tools = recipe.data, read_tools(recipe.data.tools) if recipe.data.tools else ()
    used = set(range(_BYTES)) | set(chat.tokenizer.get_added_tokens_decoder())
    for path, limit in ((data.prompts, data.limit), (data.test, data.test_limit)):
        for row in read_rows(path, tools=tools, limit=min(limit or _READ, _READ)):
            used.update(chat.example(row).ids if row.completion else chat.prompt_ids(row))
    return len(used)


def _sample(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[:: max(1, len(rows) // _SAMPLE)]


@dataclass(frozen=True)
class Training:
    """Operations, hours on the machine (low, high), bytes of disk for checkpoints and for stored targets."""

    operations: float
    hours: tuple[float, float]
    checkpoint_bytes: int
    target_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "operations": self.operations,
            "hours": [round(hours, 4) for hours in self.hours],
            "disk_bytes": self.checkpoint_bytes + self.target_bytes,
            "target_bytes": self.target_bytes,
        }


def training(student: int, teacher: int, recipe: Recipe, work: Workload, machine: Device, vocab: int) -> Training:
    """What training a student takes: its control (train.control) and the teacher's passes (train.targets) with it.

    Args:
        student: parameters.
        teacher: parameters of a local teacher; 0 for an endpoint.
        recipe: the recipe.
        work: rows and tokens.
        machine: where training runs; its rate is the sheet's, or what was measured, by the range of its efficiency.
        vocab: size of the teacher's vocabulary.
    """
    models, stored = 2 if recipe.train.control == "sft" else 1, recipe.train.targets
    passes = work.epochs if stored.kind == "online" else 1.0
    operations = 6.0 * student * work.tokens * work.epochs * models + 2.0 * teacher * work.tokens * passes
    low, high = (operations / (machine.compute * share) / 3600 for share in reversed(machine.compute_efficiency))
    targets = 0
    if stored.kind != "online":
        width = stored.draws if stored.kind == "counts" else stored.k
        targets = expected_bytes(stored.kind, round(work.rows * work.answer), vocab, width)
    return Training(operations, (low, high), 2 * checkpoint_bytes(student) + models * 4 * student, targets)
