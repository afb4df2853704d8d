"""Schemas: whether calls could be run at all, right or not."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.core.records import Call
from potstill.core.tools import Tool, argument_validators

__all__ = ["schema_valid"]


def schema_valid(calls: Sequence[Call], tools: Sequence[Tool], where: str = "tools") -> bool:
    """Whether every call names one of the tools, and its arguments fit the JSON Schema of that tool.

    Raises:
        DataError: a tool is not valid; `where` names the row in the message.
    """
    if not calls:
        return True
    validators = argument_validators(tools, where)
    return all(call.name in validators and validators[call.name].is_valid(call.arguments) for call in calls)
