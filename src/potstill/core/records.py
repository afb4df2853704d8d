"""Rows: what goes to a teacher, what comes back, and what the right answer is.

A row on disk is one JSON object a line, in OpenAI's shape:

    {"messages": [{"role": "user", "content": "lights off in the kitchen"}],
     "tools": [{"type": "function", "function": {"name": ..., "parameters": {JSON Schema}}}],
     "completion": {"role": "assistant", "content": null, "tool_calls": [...]},
     "behaviour": "tool_call", "gold": {...}, "provenance": {...}}

`completion` may instead be the last message of `messages`. `tools` may be left out when the recipe names a tools file.
`gold` says what counts as right: see `Gold`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from potstill.core.errors import DataError
from potstill.core.files import read_json, read_json_lines, write_text

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "Call",
    "Gold",
    "GoldCall",
    "LabelledRow",
    "Message",
    "Row",
    "ToolCall",
    "check_tools",
    "first_problem",
    "read_generated",
    "read_labelled",
    "read_rows",
    "read_tools",
    "write_rows",
]

Behaviour = Literal["tool_call", "multi_call", "clarify", "refuse", "answer"]
BEHAVIOURS: tuple[Behaviour, ...] = ("tool_call", "multi_call", "clarify", "refuse", "answer")


class Function(BaseModel):
    """Name and JSON-encoded arguments of one call, as OpenAI's API returns them."""

    model_config = ConfigDict(frozen=True)
    name: str
    arguments: str = "{}"


class ToolCall(BaseModel):
    """One entry of an assistant message's `tool_calls`; unknown keys (`id`) are kept out of identity."""

    model_config = ConfigDict(frozen=True)
    type: Literal["function"] = "function"
    function: Function


class Message(BaseModel):
    """One chat message. `content` is None when an assistant only calls tools."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: arguments as a mapping, absent keys left out."""
        out: dict[str, Any] = {"role": self.role, "content": self.content or ""}
        if self.tool_calls:
            out["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": c.function.name, "arguments": json.loads(c.function.arguments)},
                }
                for c in self.tool_calls
            ]
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out

    def for_api(self) -> dict[str, Any]:
        """The message as an OpenAI-compatible endpoint expects it."""
        out = self.model_dump(exclude_none=True, exclude_defaults=True) | {"role": self.role, "content": self.content}
        if self.tool_calls:
            out["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": c.function.model_dump()}
                for i, c in enumerate(self.tool_calls)
            ]
        return out


class Call(BaseModel):
    """A parsed tool call: the name and the decoded arguments."""

    model_config = ConfigDict(frozen=True)
    name: str
    arguments: dict[str, Any]


class GoldCall(BaseModel):
    """A right call: for each argument the accepted values; an argument in `optional` may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arguments: dict[str, list[Any]] = Field(default_factory=dict)
    optional: tuple[str, ...] = ()


class Gold(BaseModel):
    """What counts as a right answer to one prompt.

    `calls` are matched as a set. For answers in words (`clarify`, `refuse`, `answer`), `match` is a regular expression
    (searched, case ignored) that the text must contain; without one, the behaviour's own default is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    calls: tuple[GoldCall, ...] = ()
    match: str | None = None


class Row(BaseModel):
    """A prompt, with the answer a teacher gave and the answer that is right, where known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] = ()
    completion: Message | None = None
    behaviour: Behaviour = "answer"
    gold: Gold | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    where: str = Field(default="", exclude=True)
    """File and line the row was read from, for messages; never written."""

    @property
    def row_id(self) -> str:
        """12 hex digits that name the prompt: a hash of messages and tools, not of order, answer or provenance."""
        key = {"messages": [m.for_template() for m in self.messages], "tools": self.tools}
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


class LabelledRow(BaseModel):
    """A text and its class, for a classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = Field(min_length=1)
    label: str = Field(min_length=1)
    where: str = Field(default="", exclude=True)
    """File and line the row was read from, for messages; never written."""


def first_problem(error: ValidationError) -> str:
    """The first complaint of a pydantic error, as `key.path: message`."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    return f"{where}: {problem['msg']}"


def _with_behaviour(value: dict[str, Any]) -> dict[str, Any]:
    """A row that says nothing of its behaviour but answers with calls is about calls."""
    completion = value.get("completion")
    calls = completion.get("tool_calls") if isinstance(completion, dict) else None
    if "behaviour" in value or not isinstance(calls, list) or not calls:
        return value
    return value | {"behaviour": "tool_call" if len(calls) == 1 else "multi_call"}


def _parse_row(value: dict[str, Any], tools: tuple[dict[str, Any], ...], need_completion: bool, where: str) -> Row:
    """One row from its JSON object; `where` is file and line, for messages."""
    messages = value.get("messages")
    if "completion" not in value and isinstance(messages, list) and messages:
        last = messages[-1]
        if isinstance(last, dict) and last.get("role") == "assistant":
            value = value | {"messages": messages[:-1], "completion": last}
    if not value.get("tools") and tools:
        value = value | {"tools": tools}
    value = _with_behaviour(value)
    try:
        row = Row.model_validate(value | {"where": where})
        for message in (*row.messages, *([row.completion] if row.completion else [])):
            message.for_template()
    except ValidationError as error:
        raise DataError(f"{where}: {first_problem(error)}. See docs/row-format.md for the shape of a row.") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: a tool call's arguments are not valid JSON ({error.msg}). They must be a JSON object "
            "in a string."
        ) from None
    if need_completion and row.completion is None:
        raise DataError(
            f"{where}: the row has no assistant turn, so there is nothing to learn from it. Add a last "
            "message with role "
            '"assistant", or a "completion".'
        )
    return row


def read_rows(
    path: Path, *, tools: tuple[dict[str, Any], ...] = (), need_completion: bool = False, limit: int | None = None
) -> list[Row]:
    """Rows of a JSONL file, validated; rows without tools get `tools`.

    Raises:
        DataError: the file is absent, empty or broken; the message names the file and the line.
    """
    rows: list[Row] = []
    for number, value in read_json_lines(path):
        if limit is not None and len(rows) >= limit:
            break
        rows.append(_parse_row(value, tools, need_completion, f"{path}:{number}"))
    if not rows:
        raise DataError(f"{path}: the file has no rows. Put one JSON object a line in it.")
    return rows


def read_labelled(path: Path) -> list[LabelledRow]:
    """Rows of a JSONL file with a text and a label each.

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
        raise DataError(f"{path}: the file has no rows. Put one JSON object a line in it.")
    return rows


def read_generated(folder: Path, split: str, limit: int | None = None) -> list[Row]:
    """A split's answered rows from the directory of a generate step; none where the split has none.

    Raises:
        DataError: a file is broken.
    """
    path = folder / f"{split}.jsonl"
    if not path.is_file() or not path.stat().st_size:
        return []
    tools = folder / "tools.json"
    return read_rows(path, tools=read_tools(tools) if tools.is_file() else (), need_completion=True, limit=limit)


def read_tools(path: Path) -> tuple[dict[str, Any], ...]:
    """Tools of a JSON file, in OpenAI's shape, each schema checked against JSON Schema's own rules.

    Raises:
        DataError: the file is absent or not such a list, a name stands twice, or a schema is not valid.
    """
    tools = read_json(path, advice="`data.tools` must name a JSON file with a list of tools.")
    if not isinstance(tools, list):
        raise DataError(f"{path}: must be a list of tools, found {type(tools).__name__}.")
    check_tools(tools, str(path))
    return tuple(tools)


def check_tools(tools: Iterable[Any], where: str) -> None:
    """Raise DataError when a tool has no name, a name stands twice, or a schema is not valid JSON Schema."""
    import jsonschema_rs

    names: set[str] = set()
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(
                f'{where}: tool {index} must be {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}.'
            )
        name = function["name"]
        if name in names:
            raise DataError(f"{where}: two tools are named {name!r}; names must differ.")
        names.add(name)
        schema = function.get("parameters", {"type": "object"})
        try:
            jsonschema_rs.meta.validate(schema)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
            message = str(error).splitlines()[0]
            raise DataError(
                f"{where}: the parameters of tool {name!r} are not a valid JSON Schema: {message}."
            ) from None
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise DataError(f'{where}: the parameters of tool {name!r} must be a JSON Schema with "type": "object".')


def write_rows(path: Path, rows: Iterable[Row], tools: tuple[dict[str, Any], ...] = ()) -> None:
    """Rows as JSONL, whole or not at all; tools equal to `tools` are left out, to be given to `read_rows` again."""
    shared = Row(messages=(Message(role="user", content=""),), tools=tools).tools
    lines = []
    for row in rows:
        leave_out = {"tools"} if shared and row.tools == shared else None
        lines.append(row.model_dump_json(exclude=leave_out, exclude_none=True, exclude_defaults=True) + "\n")
    write_text(path, "".join(lines))
