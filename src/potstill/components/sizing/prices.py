"""What an answer costs: at an endpoint, by its price list, and on a device. All amounts are in the currency of the
prices.

`potstill plan` uses predicted speeds before a run, the report measured ones after it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal
from urllib.parse import urlsplit

from potstill.components.runtimes.spending import Billing
from potstill.core.errors import RecipeError
from potstill.core.recipe import ApiTeacher, Economy, LocalTeacher, MemberTeacher, Recipe, Teacher, TokenPrice

__all__ = ["Comparison", "ListedPrice", "billing", "compare", "device_cost", "find_price", "listed_price"]


@dataclass(frozen=True)
class ListedPrice:
    """Price of 10^6 tokens of prompt (input) and of answer (output); where it was read, and in which month."""

    input: float
    output: float
    source: str
    entered: str | None = None

    def of(self, prompt: float, answer: float) -> float:
        """Price of so many tokens of prompt and of answer."""
        return (prompt * self.input + answer * self.output) / 1e6

    @property
    def label(self) -> str:
        """Its source, with the month."""
        return f"{self.source}, {self.entered}" if self.entered else self.source


@dataclass(frozen=True)
class _Entry:
    """An entry of prices.toml."""

    host: str
    models: tuple[str, ...]
    price: ListedPrice


@cache
def _listed() -> tuple[_Entry, ...]:
    text = resources.files("potstill.components.sizing").joinpath("prices.toml").read_text(encoding="utf-8")
    return tuple(
        _Entry(
            row["host"], tuple(row["models"]), ListedPrice(row["input"], row["output"], row["source"], row["entered"])
        )
        for row in tomllib.loads(text)["price"]
    )


def find_price(recipe: Recipe, teacher: LocalTeacher | ApiTeacher | None = None) -> ListedPrice | None:
    """A teacher's own price, the recipe's, or that of prices.toml for this endpoint and model; None without any.

    Args:
        recipe: the recipe.
        teacher: one of several teachers; by default the recipe's only one.
    """
    if isinstance(teacher, MemberTeacher):
        member = teacher.token_price
        return ListedPrice(member.input, member.output, "teacher.teachers.prices") if member else _listed_for(teacher)
    if own := recipe.token_price:
        return ListedPrice(own.input, own.output, "prices")
    return _listed_for(recipe.teacher)


def _listed_for(teacher: Teacher) -> ListedPrice | None:
    host = urlsplit(teacher.base_url).hostname if teacher.base_url else None
    return next((entry.price for entry in _listed() if entry.host == host and teacher.model in entry.models), None)


def listed_price(model: str) -> ListedPrice | None:
    """The price in prices.toml of a model, at any host; a date at the end of its name does not count."""
    name = re.sub(r"-\d{4}-?\d{2}-?\d{2}$", "", model)
    return next((entry.price for entry in _listed() if name in entry.models), None)


def billing(recipe: Recipe, teacher: LocalTeacher | ApiTeacher) -> Billing:
    """What an endpoint of the recipe charges, and what the run may spend.

    Raises:
        RecipeError: a limit of money, and no price is known.
    """
    price = find_price(recipe, teacher)
    if price is None and recipe.budget.money is not None:
        raise RecipeError(
            f"budget.money: no price is known for {teacher.model} at {teacher.base_url}. Set prices, as "
            "{input: 2.0, output: 8.0} for 10^6 tokens of each, or limit budget.tokens."
        )
    return Billing(
        budget=recipe.budget,
        price=TokenPrice(price.input, price.output) if price else None,
        source=price.label if price else "",
    )


def device_cost(seconds: float, economy: Economy) -> float:
    """Cost of one answer that takes so many seconds of the device."""
    return seconds / 3600 * economy.device_hour


@dataclass(frozen=True)
class Comparison:
    """A student on the device against its teacher's endpoint.

    once        spent before the first answer: the endpoint's answers that the student learns from, and training
    on_device   cost of one answer; it includes wear of the device, so `once` does not
    by_api      cost of one answer
    """

    once: float
    on_device: float
    by_api: float

    @property
    def break_even(self) -> float | None:
        """Number of answers after which the student has paid for itself; None where the endpoint's are cheaper."""
        return self.once / (self.by_api - self.on_device) if self.by_api > self.on_device else None


def compare(
    price: ListedPrice | None,
    economy: Economy,
    *,
    teacher_kind: Literal["local", "api"],
    rows: int,
    prompt: float,
    answer: float,
    seconds: float,
    training_hours: float,
) -> Comparison | None:
    """The student against its teacher's endpoint; None where no price is known.

    Args:
        price: price of the endpoint's tokens; None: not known.
        economy: prices of hours of the device and of training.
        teacher_kind: an `api` teacher charges for the answers that the student learns from.
        rows: rows that the teacher answers for training.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
        seconds: time that the device takes for one answer.
        training_hours: hours of the machine that trains.
    """
    if price is None:
        return None
    by_api = price.of(prompt, answer)
    generated = rows * by_api if teacher_kind == "api" else 0.0
    return Comparison(generated + training_hours * economy.train_hour, device_cost(seconds, economy), by_api)
