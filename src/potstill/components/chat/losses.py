"""What a chat template leaves out of a conversation, found by looking for each part in the rendered text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.thinking import without_thinking
from potstill.core.messages import Call, Message, ToolCall
from potstill.core.records import Row

__all__ = ["Part", "left_out", "left_out_of_answer", "marked"]

Part = tuple[str, str]
"""What a text is, for messages to the user, and the text."""

_TAG_AT_AN_END = re.compile(r"^[<\[][^<>\[\]]+[>\]]|[<\[][^<>\[\]]+[>\]]$")
_ROLES = {
    "system": "the system message",
    "developer": "the developer message",
    "user": "the user message",
    "assistant": "an earlier answer",
    "tool": "the result of a call",
}
WORDS, EARLIER_WORDS = "words before a call", "words before an earlier call"
THINKING, CALL, ANSWER = "thinking", "a call", "the answer"


def left_out(row: Row, chat: ChatFormat) -> list[str]:
    """The parts of a row's prompt that the rendered prompt does not hold, each named once.

    Raises:
        ValueError: the template refuses the row.
    """
    text = chat.render(row.messages, row.tools, generate=True)
    return _missing([*_tool_parts(row.tools), *_prompt_parts(row.messages)], text)


def left_out_of_answer(row: Row, chat: ChatFormat) -> list[str]:
    """The parts of a row's answer that the rendered answer does not hold.

    Raises:
        ValueError: the template refuses the row.
    """
    answer = row.completion
    if answer is None:
        return []
    prompt = chat.render(row.messages, row.tools, generate=True)
    whole = chat.render((*row.messages, answer), row.tools)
    text = whole.removeprefix(prompt)
    thought, said = _split_thinking(answer.content or "")
    parts = [(THINKING, thought), (THINKING, (answer.reasoning_content or "").strip())]
    parts.append((WORDS if answer.tool_calls else ANSWER, said))
    return _missing([*parts, *_call_parts(answer)], text)


def marked(row: Row) -> Row:
    """The row with words that occur nowhere else; if it has tools, with a call as the answer."""
    names = {tool["function"]["name"]: f"zqtool{i}x" for i, tool in enumerate(row.tools)}
    tools = tuple(
        tool | {"function": tool["function"] | {"name": names[tool["function"]["name"]]}} for tool in row.tools
    )
    messages = tuple(_marked(message, i, names) for i, message in enumerate(row.messages))
    answer = Message(role="assistant", content="zqanswerx")
    if tools:
        call = Call(name=tools[0]["function"]["name"], arguments={"zqkeyx": "zqvaluex"})
        answer = Message(role="assistant", tool_calls=(ToolCall.of(call),))
    return row.model_copy(update={"messages": messages, "tools": tools, "completion": answer})


def _marked(message: Message, index: int, names: dict[str, str]) -> Message:
    calls = []
    for number, made in enumerate(message.tool_calls):
        name = names.get(made.function.name, f"zqname{number}x")
        call = Call(name=name, arguments={f"zqkey{number}x": f"zqvalue{index}x{number}x"})
        calls.append(ToolCall.of(call).model_copy(update={"id": made.id}))
    content = f"zqtext{index}x" if message.content else message.content
    return message.model_copy(update={"content": content, "tool_calls": tuple(calls), "reasoning_content": None})


# ---- parts ----


def _tool_parts(tools: Sequence[dict[str, Any]]) -> Iterator[Part]:
    for tool in tools:
        yield "the tools", str(tool["function"]["name"])


def _prompt_parts(messages: Sequence[Message]) -> Iterator[Part]:
    for message in messages:
        content = message.content or ""
        # templates leave the thinking of earlier turns out on purpose
        said = _split_thinking(content)[1] if message.role == "assistant" else content.strip()
        yield EARLIER_WORDS if message.tool_calls else _ROLES[message.role], said
        yield from _call_parts(message)


def _call_parts(message: Message) -> Iterator[Part]:
    for made in message.tool_calls:
        yield CALL, made.function.name
        for text in _texts(made.call.arguments):
            yield CALL, text


def _split_thinking(content: str) -> tuple[str, str]:
    """The thinking before an answer, without its tags, and the answer."""
    said = without_thinking(content)[0]
    if said == content or not content.endswith(said):
        return "", content.strip()
    thinking = content[: len(content) - len(said)].strip()
    return _TAG_AT_AN_END.sub("", thinking).strip(), said.strip()


def _texts(value: Any) -> Iterator[str]:
    """Keys and texts inside a call's arguments; how numbers and constants are written differs too much."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value.strip()


# ---- search ----


def _missing(parts: Sequence[Part], text: str) -> list[str]:
    """Names of the parts that the text does not hold, or holds less often than they come."""
    wanted = Counter(part for part in parts if part[1])
    per_text = Counter(needle for _, needle in wanted.elements())
    lost = [name for (name, needle), _ in wanted.items() if _count(needle, text) < per_text[needle]]
    return list(dict.fromkeys(lost))


def _count(needle: str, text: str) -> int:
    """How often a text comes, as it is or inside JSON."""
    spelt = {needle, json.dumps(needle, ensure_ascii=False)[1:-1], json.dumps(needle)[1:-1]}
    return max(map(text.count, spelt))
