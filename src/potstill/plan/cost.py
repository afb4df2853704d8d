"""What a distillation costs before it is begun: teacher tokens, training hours, disk; and what an answer costs after.

Operations are counted as in Kaplan et al. (arXiv:2001.08361): 2 a parameter and token forward, 4 more backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.plan.arithmetic import checkpoint_bytes
from potstill.plan.devices import Device
from potstill.recipe import Economy, Recipe
from potstill.targets.meta import expected_bytes

__all__ = ["Training", "Workload", "break_even", "device_cost", "teacher_cost", "training"]

_CHARACTERS = 4.0
"""Of English text in a token: an assumption, good within a third for most tokenizers."""
_HOURS_A_YEAR = 8760.0


@dataclass(frozen=True)
class Workload:
    """Rows and tokens of a recipe's training data, estimated from the size of its files.

    prompt, answer    tokens of a row; an answer is taken to be half of generate.max_new_tokens
    """

    rows: int
    prompt: float
    answer: float
    epochs: float

    @classmethod
    def of(cls, recipe: Recipe) -> Workload:
        """From the recipe's prompts file."""
        with recipe.data.prompts.open("rb") as file:
            lines = sum(1 for line in file if line.strip())
        rows = min(lines, recipe.data.limit or lines)
        characters = recipe.data.prompts.stat().st_size / max(1, lines)
        return cls(rows, characters / _CHARACTERS, recipe.generate.max_new_tokens / 2, recipe.train.epochs)

    @property
    def trained_tokens(self) -> float:
        """Tokens that training sees, over all epochs."""
        return self.rows * (self.prompt + self.answer) * self.epochs


@dataclass(frozen=True)
class Training:
    """Operations, hours on the machine (low, high), bytes of disk for checkpoints and stored targets."""

    operations: float
    hours: tuple[float, float]
    disk_bytes: int


def training(
    student: int, teacher: int, work: Workload, machine: Device, *, control: bool, stored: bool, vocab: int
) -> Training:
    """What training a student takes.

    Args:
        student: parameters.
        teacher: parameters of a local teacher; 0 for an endpoint.
        work: rows and tokens.
        machine: where training runs; its rate is the sheet's, or what was measured, by the range of its efficiency.
        control: the matched control is trained too.
        stored: the teacher's distributions are stored once (50 draws a token) instead of computed in every epoch.
        vocab: size of the teacher's vocabulary.
    """
    passes = 1.0 if stored else work.epochs
    tokens = work.rows * (work.prompt + work.answer)
    operations = 6.0 * student * tokens * work.epochs * (2 if control else 1) + 2.0 * teacher * tokens * passes
    low, high = machine.compute_efficiency
    hours = tuple(operations / (machine.compute * share) / 3600 for share in (high, low))
    disk = 2 * checkpoint_bytes(student) + (2 if control else 1) * 4 * student
    if stored:
        disk += expected_bytes("counts", round(work.rows * work.answer), vocab, 50)
    return Training(operations, (hours[0], hours[1]), disk)


def teacher_cost(work: Workload, input_price: float, output_price: float) -> float:
    """Price of the teacher's answers, in the currency of the prices, which are for 10^6 tokens."""
    return work.rows * (work.prompt * input_price + work.answer * output_price) / 1e6


def device_cost(seconds: float, economy: Economy) -> float:
    """Cost of one answer that takes so many seconds of the device: energy, and its share of the price."""
    energy = economy.watts / 1000 * seconds / 3600 * economy.kwh_price
    worn = economy.device_price * seconds / (economy.years * _HOURS_A_YEAR * 3600 * economy.busy)
    return energy + worn


def break_even(once: float, on_device: float, by_api: float) -> float | None:
    """Answers after which a student has paid for what was spent once; None where an answer of the API is cheaper."""
    return once / (by_api - on_device) if by_api > on_device else None


def to_json(found: Training) -> dict[str, Any]:
    """Plain values."""
    return {
        "operations": found.operations,
        "hours": [round(hours, 3) for hours in found.hours],
        "disk_bytes": found.disk_bytes,
    }
