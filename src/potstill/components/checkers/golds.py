"""Whether it is possible to give the right answers of rows: their tools, patterns, calls and arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from potstill.components.checkers.pattern import compile_match
from potstill.core.errors import DataError
from potstill.core.records import Gold, GoldCall, Row
from potstill.core.tools import Tool, argument_validators

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["check_golds"]


def check_golds(rows: Iterable[Row]) -> None:
    """Check the tools of every row, and that what it calls right can be answered.

    Raises:
        DataError: a tool, or a pattern, a tool name or an argument of a gold is not valid; the message names the row.
    """
    tools: tuple[Tool, ...] | None = None
    validators: Mapping[str, Validator] = {}
    for row in rows:
        if row.tools != tools:  # nearly all rows have the same tools
            validators, tools = argument_validators(row.tools, row.where), row.tools
        if row.gold is None:
            continue
        if row.gold.match is not None:
            compile_match(row.gold.match, row.where)
        _require_used(row.gold, row)
        if row.gold.continuation and row.completion is None:
            raise DataError(
                f"{row.where}: gold.continuation says that the completion is text that a person wrote, and the row has "
                "no completion. Add one, or remove gold.continuation."
            )
        for index, call in enumerate(row.gold.calls):
            _check_call(call, validators, f"{row.where}: gold.calls[{index}]")


def _require_used(gold: Gold, row: Row) -> None:
    """Raise DataError where the gold has a key that the row's behaviour does not look at."""
    calling = row.behaviour in ("tool_call", "multi_call")
    unused = {
        "calls": gold.calls and not calling,
        "match": gold.match is not None and calling,
        "equals": gold.equals and row.behaviour != "answer",
        "continuation": gold.continuation and row.behaviour != "answer",
    }
    key = next((name for name, is_unused in unused.items() if is_unused), None)
    if key is None:
        return
    read = {"calls": "tool_call or multi_call", "match": "clarify, refuse or answer"}.get(key, "answer")
    raise DataError(
        f"{row.where}: the row has the behaviour {row.behaviour}, which does not use gold.{key}. Give the row the "
        f"behaviour {read}, or remove gold.{key}."
    )


def _check_call(call: GoldCall, validators: Mapping[str, Validator], where: str) -> None:
    if call.name not in validators:
        known = ", ".join(validators) or "none: give the row tools, or the recipe data.tools"
        raise DataError(f"{where} names tool {call.name!r}, which the row does not have. Its tools are {known}.")
    empty = [name for name, accepted in call.arguments.items() if not accepted]
    if empty:
        raise DataError(f"{where}: argument {empty[0]!r} accepts no value. List the values that are right.")
    for arguments in _right_arguments(call):
        problem = next(validators[call.name].iter_errors(arguments), None)
        if problem is not None:
            shown = json.dumps(arguments, ensure_ascii=False)
            raise DataError(
                f"{where}: the right arguments {shown} do not fit the schema of tool {call.name!r}: {problem.message}. "
                "Fix the gold or the schema."
            )


def _right_arguments(call: GoldCall) -> Iterator[dict[str, Any]]:
    """Right arguments that contain each accepted value once, and once without those that may be left out."""
    first = {name: values[0] for name, values in call.arguments.items()}
    yield first
    if call.optional:
        yield {name: value for name, value in first.items() if name not in call.optional}
    for name, values in call.arguments.items():
        for value in values[1:]:
            yield first | {name: value}
