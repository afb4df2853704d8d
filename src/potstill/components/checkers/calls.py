"""Tool calls: the right ones, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.core.records import Call, GoldCall, Row

__all__ = ["calls_match", "check_calls", "names_match", "right_calls"]


def check_calls(answer: ParsedAnswer, row: Row) -> bool | None:
    """Whether the calls are the right ones, in any order; None where the row does not say which are right."""
    gold = right_calls(row)
    return calls_match(answer.calls, gold) if gold else None


def right_calls(row: Row) -> tuple[GoldCall, ...]:
    """The right calls of a row: those of its gold, or else exactly those of its own completion."""
    if row.gold is not None and row.gold.calls:
        return row.gold.calls
    made = [entry.call for entry in row.completion.tool_calls] if row.completion else []
    return tuple(GoldCall(name=c.name, arguments={key: [value] for key, value in c.arguments.items()}) for c in made)


def names_match(calls: Sequence[Call], gold: Sequence[GoldCall]) -> bool:
    """Whether the right tools are called, each as often as it should be, with whatever arguments."""
    return Counter(call.name for call in calls) == Counter(right.name for right in gold)


def calls_match(calls: Sequence[Call], gold: Sequence[GoldCall]) -> bool:
    """Whether each call can be paired with a right call of its own that it fits, with none left over.

    The calls are paired as a whole (perfect bipartite matching), not first come, first served.
    Source: augmenting paths, Berge (1957), PNAS 43:842-844; Kuhn (1955), Naval Research Logistics 2:83-97.
    """
    if len(calls) != len(gold):
        return False
    fits = [[j for j, right in enumerate(gold) if _fits(call, right)] for call in calls]
    paired: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in fits[i]:
            if j not in seen:
                seen.add(j)
                if j not in paired or place(paired[j], seen):
                    paired[j] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(calls)))


def _fits(call: Call, gold: GoldCall) -> bool:
    """Whether the name is equal, each value is accepted, nothing is added, and only optional arguments are left out."""
    if call.name != gold.name or not call.arguments.keys() <= gold.arguments.keys():
        return False
    return all(
        any(_equal(call.arguments[name], value) for value in accepted)
        if name in call.arguments
        else name in gold.optional
        for name, accepted in gold.arguments.items()
    )


def _equal(left: Any, right: Any) -> bool:
    """Deep equality of JSON values of the same type: true is not 1, "5" is not 5; 5 and 5.0 are equal."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return type(left) is type(right) and bool(left == right)
