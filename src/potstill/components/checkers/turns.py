"""Whether the turns of rows fit together: calls and their tools, results and their calls, and answers that are not
empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.core.errors import DataError
from potstill.core.records import Call, Message, Row, with_call_ids
from potstill.core.tools import Tool, argument_validators

if TYPE_CHECKING:
    from jsonschema_rs import Validator

__all__ = ["call_problem", "check_turns"]

_Kind = Literal["answer", "call", "result", "no result", "empty", "no tools"]
_WARNINGS: dict[_Kind, str] = {
    "call": "call an unknown tool in an earlier turn, or a tool with arguments that its schema rejects",
    "result": "have a tool result without a call before it",
    "no result": "have a call in an earlier turn without a result",
    "empty": "have an earlier assistant turn that is empty",
    "no tools": "call tools but list none, so their calls are not checked; list the tools in the row or in data.tools",
}
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Finding:
    kind: _Kind
    where: str
    says: str = ""


def check_turns(key: str, rows: Sequence[Row]) -> list[str]:
    """Warnings about the earlier turns of rows, one for each kind of fault, with the lines that have it.

    Args:
        key: the recipe key that names the file.
        rows: its rows, each with tools that are valid.

    Raises:
        DataError: an answer calls a tool that its row does not have, or with arguments that the tool's schema rejects:
            a model that learns it makes calls that cannot be run. The message names every such line.
    """
    found: dict[_Kind, list[_Finding]] = {}
    tools: tuple[Tool, ...] = ()
    validators: Mapping[str, Validator] = {}
    for row in rows:
        if row.tools != tools:  # nearly all rows have the same tools
            validators, tools = argument_validators(row.tools, row.where), row.tools
        for finding in {each.kind: each for each in _findings(row, validators)}.values():
            found.setdefault(finding.kind, []).append(finding)
    if wrong := found.pop("answer", []):
        raise DataError(
            f"{wrong[0].where}: {wrong[0].says}. A model that learns this answer makes calls that cannot be run. Fix "
            f"the answer or the tools{_others(wrong)}."
        )
    return [
        f"{key}: {len(each)} of {len(rows)} rows {_WARNINGS[kind]}: {_places([one.where for one in each])}."
        for kind, each in found.items()
    ]


def _others(wrong: Sequence[_Finding]) -> str:
    more = [each.where for each in wrong[1:]]
    return f"; {len(more)} more rows have such answers: {_places(more)}" if more else ""


def _places(places: Sequence[str]) -> str:
    """The first places, all of one file, with the file's name once."""
    file, first = places[0].rsplit(":", 1)
    shown = [f"{Path(file).name}:{first}", *(place.rsplit(":", 1)[1] for place in places[1:_SHOWN])]
    return ", ".join(shown) + (f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else "")


def _findings(row: Row, validators: Mapping[str, Validator]) -> Iterator[_Finding]:
    turns = [message for message in (*row.messages, row.completion) if message]
    if not row.tools and any(turn.tool_calls for turn in turns):
        yield _Finding("no tools", row.where)
    elif row.completion and (problem := _wrong_call(row.completion, validators)):
        yield _Finding("answer", row.where, f"the answer {problem}")
    if row.tools and any(_wrong_call(message, validators) for message in row.messages):
        yield _Finding("call", row.where)
    if any(m.role == "assistant" and not m.tool_calls and not (m.content or "").strip() for m in row.messages):
        yield _Finding("empty", row.where)
    open_ids: set[str | None] = set()
    for message in with_call_ids(turns):
        if message.role != "tool":
            if open_ids:
                yield _Finding("no result", row.where)
            open_ids = {call.id for call in message.tool_calls}
        elif message.tool_call_id in open_ids:
            open_ids.remove(message.tool_call_id)
        else:
            yield _Finding("result", row.where)


def _wrong_call(message: Message, validators: Mapping[str, Validator]) -> str | None:
    """What is wrong with the first wrong call of a message."""
    return next((problem for entry in message.tool_calls if (problem := call_problem(entry.call, validators))), None)


def call_problem(call: Call, validators: Mapping[str, Validator]) -> str | None:
    """Why a call cannot be run, as a clause: its tool is not in the row, or its arguments do not fit the schema."""
    if call.name not in validators:
        return f"calls tool {call.name!r}, which the row does not have; its tools are {', '.join(validators)}"
    error = next(validators[call.name].iter_errors(call.arguments), None)
    if error is None:
        return None
    hint = ""
    if nulls := [name for name, value in call.arguments.items() if value is None]:
        hint = f" (null in {', '.join(nulls)} may come from a data set that fills absent keys; leave such keys out)"
    return f"calls tool {call.name!r} with arguments that do not fit its schema: {error.message}{hint}"
