"""The request in the model card: a test row that the file answered right, asked once more of the packaged file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.reasoning import as_chosen
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.judge import judge_answer
from potstill.core.artifacts.answers import JudgedAnswer, read_answers
from potstill.core.errors import StepError
from potstill.core.records import Row, ToolCall, read_rows

if TYPE_CHECKING:
    from potstill.components.runtimes.gguf import GGUFServer
    from potstill.stages.package.stage import PackageInputs

__all__ = ["TOOLS", "Example", "find_example", "tools_text"]

TOOLS = "tools.json"
_TRIES = 5  # a greedy answer can change where two tokens are almost equally likely
_LONG = 300  # characters of a prompt that is too long to show if there is a shorter one


@dataclass(frozen=True)
class Example:
    """A request that the packaged file was sent, and its answer.

    row      the test row
    request  the body of the request
    answer   the message in the reply, without ids
    right    whether the answer is right; None where the row does not say what is right
    """

    row: Row
    request: dict[str, Any]
    answer: dict[str, Any]
    right: bool | None


def tools_text(row: Row) -> str:
    """Content of tools.json: the tools of a row as they were trained, one per line."""
    return "[\n" + ",\n".join(json.dumps(tool, ensure_ascii=False) for tool in row.tools) + "\n]\n"


def find_example(inputs: PackageInputs, chat: ChatFormat, gguf: Path) -> Example:
    """Ask the packaged file test rows that it answered right, until it answers one right again.

    If it answered none right, or the rows do not say what is right, it is asked the first row.

    Raises:
        StepError: the file cannot be served, or it answers none of these rows right, although it did when it was
            evaluated.
    """
    from potstill.components.runtimes.gguf import GGUFServer

    answers = {a.row_id: a for a in read_answers(inputs.answers.path, JudgedAnswer)}
    tools = inputs.data.get("tools")
    rows = as_chosen(read_rows(inputs.data["test"].path, tools=tools.path if tools else None), inputs.chat.reasoning)
    rows = sorted((row for row in rows if row.row_id in answers), key=_order)
    candidates = [row for row in rows if answers[row.row_id].exact][:_TRIES]
    with GGUFServer(gguf, context=inputs.chat.context) as server:
        for row in candidates:
            example = _ask(server, chat, row, inputs.sampling.max_new_tokens)
            if example.right:
                return example
        if not candidates:
            return _ask(server, chat, rows[0], inputs.sampling.max_new_tokens)
    if inputs.sampling.temperature > 0:  # the answers were drawn, and this one is the likeliest
        return example
    names = ", ".join(row.name for row in candidates)
    raise StepError(
        f"{gguf.name}: the packaged file does not answer {names} right, as it did when it was evaluated. Delete the "
        "evaluate step's folder and run again; if the answers still differ, llama.cpp or the machine has changed."
    )


def _order(row: Row) -> tuple[bool, ...]:
    """Rows with tools, with a call and with a short prompt come first."""
    length = sum(len(m.content or "") for m in row.messages)
    return not row.tools, row.behaviour != "tool_call", length > _LONG


def _ask(server: GGUFServer, chat: ChatFormat, row: Row, max_new_tokens: int) -> Example:
    from potstill.components.runtimes.gguf_runtime import ask_chat, chat_request

    request = chat_request(row, chat) | {"temperature": 0, "max_tokens": max_new_tokens}
    reply = ask_chat(server, request)
    if isinstance(reply, ParsedAnswer):
        return Example(row, request, {"role": "assistant", "content": None}, right=False)
    found, calls = judge_answer(reply.parsed, row).exact, tuple(ToolCall.of(call) for call in reply.parsed.calls)
    message: dict[str, Any] = {"role": "assistant", "content": reply.parsed.content}
    if calls:
        message["tool_calls"] = [call.model_dump(exclude_none=True) for call in calls]
    return Example(row, request, message, None if found is None else found and not reply.cut_off)
