"""Rows: the prompt that a model is given, the answer that a teacher gave, and the answer that is right.

A file of rows has one JSON object per line, in OpenAI's format:

    {"messages": [{"role": "user", "content": "lights off in the kitchen"}],
     "tools": [{"type": "function", "function": {"name": ..., "parameters": {JSON Schema}}}],
     "completion": {"role": "assistant", "content": null, "tool_calls": [...]},
     "behaviour": "tool_call", "gold": {...}, "provenance": {...}}

`completion` may instead be the last message of `messages`. `tools` may be left out where the recipe names a file of
tools. `gold` says which answers are right: see `Gold`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from potstill.core.argument_order import with_ordered_arguments
from potstill.core.errors import DataError
from potstill.core.files import read_json_lines, write_text
from potstill.core.messages import Call, Function, Message, ToolCall, with_call_ids
from potstill.core.row_formats import in_row_format
from potstill.core.tools import Tool, canonical_tools, read_tools

__all__ = [
    "BEHAVIOURS",
    "FINISHED",
    "Behaviour",
    "Call",
    "Function",
    "Gold",
    "GoldCall",
    "LabelledRow",
    "Message",
    "Normaliser",
    "Row",
    "ToolCall",
    "first_problem",
    "parse_row",
    "read_labelled",
    "read_rows",
    "with_call_ids",
    "write_rows",
]

Behaviour = Literal["tool_call", "multi_call", "clarify", "refuse", "answer"]
BEHAVIOURS: tuple[Behaviour, ...] = ("tool_call", "multi_call", "clarify", "refuse", "answer")


Normaliser = Literal["case", "spaces", "punctuation", "articles", "number", "order"]


class GoldCall(BaseModel):
    """A right call.

    arguments   the accepted values of each argument
    optional    arguments that may be left out
    normalise   differences that do not count, by argument; without it, a value must be equal
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arguments: dict[str, list[Any]] = Field(default_factory=dict)
    optional: tuple[str, ...] = ()
    normalise: dict[str, tuple[Normaliser, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _normalises_its_arguments(self) -> GoldCall:
        unknown = sorted(self.normalise.keys() - self.arguments.keys())
        if unknown:
            raise ValueError(f"normalise has {unknown[0]!r}, which is not an argument of this gold")
        return self


class Gold(BaseModel):
    """Which answers to a prompt are right.

    calls    the tool calls that must be made, in any order
    match    for answers in words (`clarify`, `refuse`, `answer`): a regular expression that must be found in the text,
             case ignored; without it, the default of the behaviour is used
    equals   for `answer`: whole answers that are right, case and spacing ignored
    continuation   for `answer`: the completion is text that a person wrote, and one of many right ones, so no answer
             is right or wrong, and models are compared by how likely the text is to them
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    calls: tuple[GoldCall, ...] = ()
    match: str | None = None
    equals: tuple[str, ...] = ()
    continuation: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> Gold:
        if self.continuation and (self.calls or self.match or self.equals):
            raise ValueError(
                "gold.continuation says that no answer is right or wrong: leave calls, match and equals out"
            )
        return self


class Row(BaseModel):
    """A prompt, with the answer of a teacher and the right answer where they are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    completion: Message | None = None
    behaviour: Behaviour = "answer"
    gold: Gold | None = None
    group: str | None = None
    """Name of an item; rows with the same name are phrasings of it, and are not independent in scores."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    where: str = Field(default="", exclude=True)
    """The file and the line that the row was read from, for messages; it is never written."""

    @property
    def name(self) -> str:
        """How a message names the row: its file and line, or else its id."""
        return self.where or f"row {self.row_id}"

    @property
    def unfinished(self) -> bool:
        """Whether its answer is known to be cut off, or ended by an endpoint."""
        return self.provenance.get("finish_reason", "stop") not in FINISHED

    @property
    def row_id(self) -> str:
        """12 hex digits that identify the prompt: a hash of the messages and tools, and of nothing else.

        Ids of calls do not count, because many tools draw them at random.
        """
        key = {"messages": [m.without_ids().for_template() for m in self.messages], "tools": self.tools}
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


FINISHED = ("stop", "tool_calls", "function_call")
"""Values of OpenAI's `finish_reason` for a whole answer. After any other, no end token is learnt."""

_KEYS = [name for name in Row.model_fields if name != "where"]


class LabelledRow(BaseModel):
    """A text and its class, for a classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(min_length=1)
    label: str = Field(min_length=1)
    where: str = Field(default="", exclude=True)
    """The file and the line that the row was read from, for messages; it is never written."""


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error, as `key.path: message`."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    message = problem["ctx"]["error"] if problem["type"] == "value_error" else problem["msg"]
    if problem["type"] == "tuple_type":
        message = "Input should be a list"  # JSON and YAML have no tuples
    return f"{where}: {message}"


def _with_behaviour(value: dict[str, Any]) -> dict[str, Any]:
    """The row with its behaviour; where it names none, its right calls give it: those of its gold or of its answer."""
    found = [each for each in (value.get("gold"), value.get("completion")) if isinstance(each, dict)]
    calls: Any = next((each[key] for each in found for key in ("calls", "tool_calls") if each.get(key)), None)
    if "behaviour" in value or not isinstance(calls, list):
        return value
    return value | {"behaviour": "tool_call" if len(calls) == 1 else "multi_call"}


def parse_row(value: dict[str, Any], tools: tuple[Tool, ...], need_completion: bool, where: str) -> Row:
    """A row from its JSON object; `where` is the file and the line, for messages.

    Raises:
        DataError: the object is not a row.
    """
    try:
        value = in_row_format(value, _KEYS)
        own = value.get("tools")
        value |= {"tools": canonical_tools(own, where) if isinstance(own, list) and own else own or tools}
        row = Row.model_validate(_with_behaviour(value) | {"where": where})
        if need_completion and row.completion is None:
            row = row.model_copy(update={"completion": _gold_answer(row)})
        _require_answer(row, need_completion)
        row = _with_ordered_arguments(row)
    except ValidationError as error:
        problem = first_problem(error)
    except ValueError as error:
        problem = str(error)
    else:
        return row
    end = "" if problem.endswith("?") else "."
    raise DataError(f"{where}: {problem}{end} See docs/row-format.md for the shape of a row.")


def _with_ordered_arguments(row: Row) -> Row:
    """The row with the arguments of all calls in the order in which llama.cpp's server writes them."""
    if not row.tools:
        return row
    messages = tuple(with_ordered_arguments(message, row.tools) for message in row.messages)
    completion = with_ordered_arguments(row.completion, row.tools) if row.completion else None
    return row.model_copy(update={"messages": messages, "completion": completion})


def _gold_answer(row: Row) -> Message | None:
    """The answer that the gold gives, where it accepts one value for each argument."""
    calls = row.gold.calls if row.gold else ()
    if not calls or any(len(values) != 1 for call in calls for values in call.arguments.values()):
        return None
    made = [Call(name=c.name, arguments={key: values[0] for key, values in c.arguments.items()}) for c in calls]
    return Message(role="assistant", tool_calls=tuple(map(ToolCall.of, made)))


def _require_answer(row: Row, needed: bool) -> None:
    """Raise ValueError where the answer is missing or says nothing."""
    answer = row.completion
    if answer is None:
        if needed:
            raise ValueError(
                "the row has no assistant turn, so nothing can be learnt from it. Add a last message with the role "
                '"assistant", a "completion", or a gold whose calls accept one value for each argument'
            )
        return
    if answer.role != "assistant":
        raise ValueError(f"the completion has the role {answer.role}, and must have the role assistant")
    if not answer.tool_calls and not (answer.content or "").strip():
        raise ValueError(
            "the answer of the assistant is empty, so a model would learn to say nothing. Write the answer, or delete "
            "the assistant's turn"
        )


def read_rows(
    path: Path, *, tools: Path | None = None, need_completion: bool = False, limit: int | None = None
) -> list[Row]:
    """The rows of a JSONL file.

    Args:
        path: the file.
        tools: a JSON file with the tools of the rows that have none of their own, such as `data.tools`.
        need_completion: whether every row must have an answer.
        limit: the number of rows to read, from the top; None: all.

    Raises:
        DataError: a file is absent, empty or broken; the message names the file and the line.
    """
    shared = read_tools(tools) if tools else ()
    rows: list[Row] = []
    for number, value in read_json_lines(path):
        if limit is not None and len(rows) >= limit:
            break
        rows.append(parse_row(value, shared, need_completion, f"{path}:{number}"))
    if not rows:
        raise _no_rows(path)
    return rows


def read_labelled(path: Path) -> list[LabelledRow]:
    """The rows of a JSONL file that have a text and a label each.

    Raises:
        DataError: the file is absent, empty or broken; the message names the file and the line.
    """
    rows = []
    for number, value in read_json_lines(path):
        where = f"{path}:{number}"
        try:
            rows.append(LabelledRow.model_validate(value | {"where": where}))
        except ValidationError as error:
            raise DataError(f'{where}: {first_problem(error)}. A row is {{"text": "...", "label": "..."}}.') from None
    if not rows:
        raise _no_rows(path)
    return rows


def _no_rows(path: Path) -> DataError:
    return DataError(f"{path}: the file has no rows. Put one JSON object per line into it.")


def write_rows(path: Path, rows: Iterable[Row], tools: tuple[Tool, ...] = ()) -> None:
    """Write rows as JSONL. Rows that have exactly `tools` are written without them, to be read with a tools file."""
    shared = Row(messages=(Message(role="user", content=""),), tools=tools).tools
    lines = []
    for row in rows:
        leave_out = {"tools"} if shared and row.tools == shared else None
        lines.append(row.model_dump_json(exclude=leave_out, exclude_none=True, exclude_defaults=True) + "\n")
    write_text(path, "".join(lines))
