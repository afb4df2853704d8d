"""Sums with one answer, and units to convert."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

from potstill.components.suites.builtin.made import made_item
from potstill.components.suites.items import Item

__all__ = ["arithmetic", "units"]

_SYSTEM = "Work it out. End with #### and the answer as a number."
_STORIES: tuple[tuple[str, Callable[[int, int, int], int]], ...] = (
    ("A box holds {a} bottles. How many are in {b} boxes, if {c} bottles are missing?", lambda a, b, c: a * b - c),
    ("A train has {b} cars with {a} seats each. {c} seats are taken. How many are free?", lambda a, b, c: a * b - c),
    ("{a} people pay {b} euros each, and {c} euros are given back. How much is left?", lambda a, b, c: a * b - c),
    (
        "Ada is {a}, and Ben is {b} years older. How old are they in all in {c} years?",
        lambda a, b, c: 2 * (a + c) + b,
    ),
)
_UNITS = (
    ("kilometres", "metres", Fraction(1000)), ("hours", "minutes", Fraction(60)), ("days", "hours", Fraction(24)),
    ("kilograms", "grams", Fraction(1000)), ("litres", "millilitres", Fraction(1000)),
    ("metres", "centimetres", Fraction(100)), ("minutes", "hours", Fraction(1, 60)),
    ("inches", "feet", Fraction(1, 12)),
)  # fmt: skip


def arithmetic(draw: random.Random) -> Item:
    """A sum, or a story with one."""
    a, b, c = draw.randint(2, 40), draw.randint(2, 20), draw.randint(1, 9)
    if draw.random() < 0.5:
        question, solve = draw.choice(_STORIES)
        return made_item(
            question.format(a=a, b=b, c=c), {"kind": "numeric", "value": str(solve(a, b, c))}, "story", _SYSTEM
        )
    sign = draw.choice(("+", "-", "*"))
    value = {"+": a + b, "-": b - a, "*": a * b}[sign]
    first, second = (b, a) if sign == "-" else (a, b)
    tag = {"+": "sum", "-": "difference", "*": "product"}[sign]
    return made_item(f"What is {first} {sign} {second}?", {"kind": "numeric", "value": str(value)}, tag, _SYSTEM)


def units(draw: random.Random) -> Item:
    """A quantity in another unit."""
    unit, other, factor = draw.choice(_UNITS)
    count = draw.randint(2, 99) * (factor.denominator if factor < 1 else 1)
    expected = {"kind": "numeric", "value": str(count * factor)}
    return made_item(f"How many {other} are {count} {unit}?", expected, "units", _SYSTEM)
