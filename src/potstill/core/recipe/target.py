"""The recipe's section on the device: its budgets, and what it costs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from potstill.core.recipe.fields import ELSEWHERE, NotNegative, Positive, Section

__all__ = ["Economy", "Target"]


class Economy(Section):
    """What the device costs to own and to run. The defaults are assumptions: set the true values of yours."""

    watts: NotNegative = 10.0
    """Power that the device draws while it answers, in watts; default: 10."""
    kwh_price: NotNegative = 0.30
    """Price of electricity per kWh, in the currency of teacher.price; default: 0.30."""
    device_price: NotNegative = 0.0
    """Price of the device, or 0 for one that is there anyway; default: 0."""
    years: Positive = 3.0
    """Time until the device is written off, in years; default: 3."""
    busy: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Fraction of that time in which the device answers; default: 0.1."""
    train_hour_price: NotNegative = 0.0
    """Price per hour of the machine that trains, or 0 for one that is there anyway; default: 0."""


class Target(Section):
    """The device that the student runs on, and its budgets."""

    device: str = "unnamed"
    """Name of the device, by which `potstill plan` knows its memory and speed; default: unnamed."""
    file_mb: Positive | None = None
    """Maximum size of the file, in MB (10^6 bytes); default: no limit."""
    memory_mb: Positive | None = None
    """Maximum peak resident memory, in MB (10^6 bytes); default: no limit."""
    ttft_ms: Positive | None = None
    """Maximum median time to the first token, in milliseconds; default: no limit."""
    decode_tokens_per_s: Positive | None = None
    """Minimum median speed of decoding, in tokens per second; default: no limit."""
    economy: Annotated[Economy, ELSEWHERE] = Field(default_factory=Economy)
    """Costs of the device, for `potstill plan` and the report; default: the defaults of its keys."""
