"""A confidence interval, and the checks of what is asked for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Interval", "checked_share", "tail_of"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, ends included; an end may be infinite."""

    low: float
    high: float


def checked_share(value: float, name: str) -> float:
    """The value, if it lies between 0 and 1.

    Raises:
        ValueError: it does not.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
    return value


def tail_of(confidence: float) -> float:
    """The accepted probability of a miss at each end of a two-sided interval."""
    return (1 - checked_share(confidence, "confidence")) / 2
