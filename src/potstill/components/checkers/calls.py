"""Tool calls: the right ones, and no others."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.normalise import equal, normalised
from potstill.core.records import Call, GoldCall, Row

__all__ = ["CallError", "call_error", "calls_error", "calls_match", "check_calls", "names_match", "right_calls"]

CallError = Literal["no_call", "wrong_tool", "wrong_number", "missing_argument", "extra_argument", "wrong_value"]
_ERRORS = ("", "wrong_value", "extra_argument", "missing_argument")  # from the smallest to the largest


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
    return call_error(call, gold) is None


def call_error(call: Call, gold: GoldCall) -> CallError | None:
    """What is wrong with a call: None if the name is equal, each value is accepted, nothing is added, and only optional
    arguments are left out."""
    if call.name != gold.name:
        return "wrong_tool"
    given = _by_gold_name(call, gold)
    if gold.arguments.keys() - given.keys() - set(gold.optional):
        return "missing_argument"
    if given.keys() - gold.arguments.keys():
        return "extra_argument"
    right = all(accepts(gold, name, value) for name, value in given.items())
    return None if right else "wrong_value"


def accepts(gold: GoldCall, name: str, value: Any) -> bool:
    """Whether a value of an argument is one of those that the gold accepts."""
    names = gold.normalise.get(name, ())
    value = normalised(value, names)
    return any(equal(value, normalised(right, names)) for right in gold.arguments[name])


def _by_gold_name(call: Call, gold: GoldCall) -> dict[str, Any]:
    """The arguments of a call by their names in Unicode's composed form, as the gold spells them."""
    spelt = {unicodedata.normalize("NFC", name): name for name in gold.arguments}
    return {spelt.get(unicodedata.normalize("NFC", name), name): value for name, value in call.arguments.items()}


def calls_error(calls: Sequence[Call], gold: Sequence[GoldCall]) -> CallError | None:
    """The first thing that is wrong with calls that do not match: the tools, their number, or the arguments of one."""
    if calls_match(calls, gold):
        return None
    if not calls:
        return "no_call"
    if {call.name for call in calls} - {right.name for right in gold}:
        return "wrong_tool"
    if not names_match(calls, gold):
        return "wrong_number"
    found = (
        min((call_error(call, right) or "" for right in gold if right.name == call.name), key=_ERRORS.index)
        for call in calls
    )
    # calls that fit a gold each, but the same one, have a wrong value: there is another gold that none of them fits
    return next((error for error in found if error), "wrong_value")
