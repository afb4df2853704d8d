"""The recipe's mappings on licences and prices: what things may be used for, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from potstill.core.recipe.fields import ELSEWHERE, NotNegative, OneLine

__all__ = ["ASSUMED_DEVICE_HOUR", "Economy", "Licenses", "PriceName", "Prices", "TokenPrice"]

ASSUMED_DEVICE_HOUR = 0.003
"""Price of an hour in which the device answers, where the recipe has none: 10 W at 0.30 per kWh."""

PriceName = Literal["input", "output", "device_hour", "train_hour"]
Licenses = Annotated[dict[Literal["data", "teacher", "student", "package"], OneLine], ELSEWHERE]
Prices = Annotated[dict[PriceName, NotNegative], ELSEWHERE]


@dataclass(frozen=True)
class Economy:
    """Prices of hours, in the currency of the recipe.

    device_hour   of an hour in which the device answers
    train_hour    of an hour of training
    """

    device_hour: float
    train_hour: float


@dataclass(frozen=True)
class TokenPrice:
    """Price of 10^6 tokens of prompt and of answer, in the currency of the recipe."""

    input: float
    output: float
