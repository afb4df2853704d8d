"""What an answer costs: by an endpoint's price list, and on a device of one's own. One currency, the prices' own.

`plan` reckons with predicted speeds before a run, the report with measured ones after it.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from potstill.core.recipe import Economy, Teacher

__all__ = ["Comparison", "ListedPrice", "compare", "device_cost", "find_price"]

_HOURS_A_YEAR = 8760.0


@dataclass(frozen=True)
class ListedPrice:
    """Of 10^6 tokens of prompt (input) and of answer (output); where it was read, and in which month."""

    input: float
    output: float
    source: str
    entered: str | None = None

    def of(self, prompt: float, answer: float) -> float:
        """Price of so many tokens of prompt and answer."""
        return (prompt * self.input + answer * self.output) / 1e6

    @property
    def says(self) -> str:
        """Its source in words."""
        return f"{self.source}, {self.entered}" if self.entered else self.source


@cache
def _listed() -> tuple[dict[str, Any], ...]:
    text = resources.files("potstill.components.sizing").joinpath("prices.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["price"])


def find_price(teacher: Teacher) -> ListedPrice | None:
    """The recipe's own price, or else what prices.toml has for this endpoint and model; None where neither knows."""
    if teacher.price:
        return ListedPrice(teacher.price.input, teacher.price.output, "teacher.price")
    host = urlsplit(teacher.base_url).hostname if teacher.base_url else None
    for row in _listed():
        if row["host"] == host and teacher.model in row["models"]:
            return ListedPrice(row["input"], row["output"], row["source"], row["entered"])
    return None


def device_cost(seconds: float, economy: Economy) -> float:
    """Cost of one answer that takes so many seconds of the device: energy, and its share of the device's price."""
    energy = economy.watts / 1000 * seconds / 3600 * economy.kwh_price
    worn = economy.device_price * seconds / (economy.years * _HOURS_A_YEAR * 3600 * economy.busy)
    return energy + worn


@dataclass(frozen=True)
class Comparison:
    """A student on the device against its teacher's endpoint.

    once        spent before the first answer: the endpoint's answers that it learns from, and training
    on_device   of one answer; wear of the device is in it, and so not in `once`
    by_api      of one answer
    """

    once: float
    on_device: float
    by_api: float

    @property
    def break_even(self) -> float | None:
        """Answers after which the student has paid for itself; None where an answer of the endpoint is cheaper."""
        return self.once / (self.by_api - self.on_device) if self.by_api > self.on_device else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "break_even_answers": self.break_even}


def compare(
    teacher: Teacher,
    economy: Economy,
    *,
    rows: int,
    prompt: float,
    answer: float,
    seconds: float,
    training_hours: float,
) -> Comparison | None:
    """The student against its teacher's endpoint; None where no price is known.

    Args:
        rows: that the teacher answers for training; they cost nothing where it runs here.
        prompt, answer: tokens of one.
        seconds: that the device takes for one answer.
        training_hours: of the machine that trains.
    """
    price = find_price(teacher)
    if price is None:
        return None
    by_api = price.of(prompt, answer)
    taught = rows * by_api if teacher.kind == "api" else 0.0
    return Comparison(taught + training_hours * economy.train_hour_price, device_cost(seconds, economy), by_api)
