"""Chat messages in OpenAI's format: what a message may hold, and the shapes that templates and endpoints expect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from potstill.core.json_values import BadJson, plain_numbers, read_strictly
from potstill.core.words import nearest_hint

__all__ = ["ArgumentsForm", "Call", "Function", "IdForm", "Message", "ToolCall", "parse_arguments", "with_call_ids"]

ArgumentsForm = Literal["mapping", "text"]
IdForm = Literal["any", "nine"]
"""Which ids of calls an endpoint or a template takes: any, or nine letters and digits, as Mistral's templates do."""

_SAYS_NOTHING = ("annotations", "index")
"""Keys that endpoints add to messages and calls, and that are no part of the conversation."""
_OTHER_NAMES = {"reasoning": "reasoning_content", "thinking": "reasoning_content"}
"""Names that other endpoints have for a key: vLLM and OpenRouter, and Ollama."""


class Call(BaseModel):
    """A tool call: the tool's name, and the arguments as values."""

    model_config = ConfigDict(frozen=True)
    name: str
    arguments: dict[str, Any]


class Function(BaseModel):
    """A tool call as OpenAI's API returns it: the tool's name, and the arguments as JSON text.

    Arguments that are given as an object are written as text, and 1.0 is written as 1, as llama.cpp's templates do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arguments: str = "{}"

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return _require_known(value, cls) if isinstance(value, Mapping) else value

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> str:
        text = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) or "{}"
        arguments = parse_arguments(text)
        same = "." not in text or json.dumps(arguments) == json.dumps(json.loads(text))
        return text if same else json.dumps(arguments, ensure_ascii=False)


class ToolCall(BaseModel):
    """One entry of an assistant message's `tool_calls`. `id` is the name by which a tool's result refers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str | None = None
    type: Literal["function"] = "function"
    function: Function

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return _require_known(_without_nulls(value), cls) if isinstance(value, Mapping) else value

    @classmethod
    def of(cls, call: Call) -> ToolCall:
        """The entry for a call."""
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return cls(function=Function(name=call.name, arguments=arguments))

    @property
    def call(self) -> Call:
        """The call with its arguments parsed."""
        return Call(name=self.function.name, arguments=json.loads(self.function.arguments))


class Message(BaseModel):
    """One chat message.

    content             None when an assistant only calls tools
    reasoning_content   what a model thought before it answered
    name                name of the speaker or of the tool, for templates that use it
    tool_call_id        the call that a message of role `tool` answers
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_read(cls, value: Any) -> Any:
        return _require_known(_in_one_shape(_without_nulls(value)), cls) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} cannot call tools; only the assistant can")
        if self.content is None and not self.tool_calls:
            calls = ", and no tool_calls" if self.role == "assistant" else ""
            raise ValueError(f"the message of role {self.role} has no content{calls}. Write its text, or delete it")
        return self

    def for_template(self, arguments: ArgumentsForm = "mapping") -> dict[str, Any]:
        """The message as chat templates expect it, with its keys in llama.cpp's order, and without absent ones.

        Ids of calls are those that the message has; see `with_call_ids`.

        Args:
            arguments: `mapping` for values, or `text` for the JSON text, which some templates require.
        """
        return self._written(self.content or "", arguments)

    def without_ids(self) -> Message:
        """The message without the ids, which only link results to calls."""
        calls = tuple(call.model_copy(update={"id": None}) for call in self.tool_calls)
        return self.model_copy(update={"tool_calls": calls, "tool_call_id": None})

    def for_api(self) -> dict[str, Any]:
        """The message as an OpenAI-compatible endpoint expects it; see also `with_call_ids`."""
        return self._written(self.content, "text")

    def _written(self, content: str | None, arguments: ArgumentsForm) -> dict[str, Any]:
        out: dict[str, Any] = {"role": self.role, "content": content}
        if self.reasoning_content is not None:
            out["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            out["tool_calls"] = [
                {"type": "function", "function": (call.call if arguments == "mapping" else call.function).model_dump()}
                | ({} if call.id is None else {"id": call.id})
                for call in self.tool_calls
            ]
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out


# ---- ids of calls ----


def with_call_ids(messages: Iterable[Message], form: IdForm = "any") -> tuple[Message, ...]:
    """The messages, with an id for every call, and with the call's id in every result.

    Ids that are absent, or of another form, are replaced by numbers in the order of the calls, the same in each
    conversation. A result without an id answers the first call before it, of the result's name where it has one, that
    has no result yet.

    Args:
        messages: a conversation.
        form: `any` for the ids that the messages have, or `nine` for nine letters and digits.
    """
    given = tuple(messages)
    taken = {call.id for message in given for call in message.tool_calls}
    unused = (name for name in (_ID_FORMS[form](number) for number in count()) if name not in taken)
    new_ids: dict[str, str] = {}
    waiting: list[tuple[str, str]] = []  # calls without a result: the tool's name, and the id
    out = []
    for message in given:
        if message.tool_calls:
            ids = [call.id if _has_form(call.id, form) else next(unused) for call in message.tool_calls]
            pairs = list(zip(message.tool_calls, map(str, ids), strict=True))
            new_ids |= {call.id: new for call, new in pairs if call.id is not None}
            waiting = [(call.function.name, new) for call, new in pairs]
            calls = tuple(call.model_copy(update={"id": new}) for call, new in pairs)
            message = message.model_copy(update={"tool_calls": calls})
        elif message.role == "tool":
            answered = _answered(message, new_ids, waiting)
            waiting = [each for each in waiting if each[1] != answered]
            message = message.model_copy(update={"tool_call_id": answered})
        out.append(message)
    return tuple(out)


def _answered(result: Message, new_ids: Mapping[str, str], waiting: Sequence[tuple[str, str]]) -> str | None:
    """The id of the call that a result answers; None where no call waits for one."""
    if result.tool_call_id is not None:
        return new_ids.get(result.tool_call_id, result.tool_call_id)
    named = [new for name, new in waiting if name == result.name]
    return next(iter(named or [new for _, new in waiting]), None)


def _has_form(call_id: str | None, form: IdForm) -> bool:
    return call_id is not None and (form == "any" or re.fullmatch("[a-zA-Z0-9]{9}", call_id) is not None)


_ID_FORMS: dict[IdForm, Callable[[int], str]] = {
    "any": "call_{}".format,
    "nine": "call{:05d}".format,
}


# ---- reading ----


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call from their JSON text.

    Raises:
        ValueError: the text is not a JSON object; the message says why, and what to write.
    """
    advice = 'Write a JSON object, and "{}" where there are none'
    try:
        value = plain_numbers(read_strictly(text))
    except BadJson as error:
        raise ValueError(f"the arguments of a tool call are not valid JSON ({error}). {advice}") from None
    if not isinstance(value, dict):
        raise ValueError(f"the arguments of a tool call must be a JSON object, found {text[:40]}. {advice}")
    return value


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value: data sets from a hub fill the keys that only other messages have with null."""
    return {key: item for key, item in value.items() if item is not None and key not in _SAYS_NOTHING}


def _require_known(value: Mapping[str, Any], kind: type[BaseModel]) -> Mapping[str, Any]:
    known = list(kind.model_fields)
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; {nearest_hint(key, known, 'known keys are')}")
    return value


def _in_one_shape(value: dict[str, Any]) -> dict[str, Any]:
    """The message with today's keys in place of old and other ones, and its content as one text."""
    value = {_OTHER_NAMES.get(key, key): item for key, item in value.items()}
    if value.get("role") == "function":
        value["role"] = "tool"
    if "function_call" in value:
        if "tool_calls" in value:
            raise ValueError("the message has both function_call and tool_calls. Keep tool_calls")
        value["tool_calls"] = [{"type": "function", "function": value.pop("function_call")}]
    if "refusal" in value:
        refusal = value.pop("refusal")
        value["content"] = value.get("content") or refusal
    if isinstance(value.get("content"), Sequence) and not isinstance(value["content"], str):
        value["content"] = "\n".join(map(_part_text, value["content"]))
    return value


def _part_text(part: Any) -> str:
    """The text of one part of a content that is a list."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get(kind) if isinstance(part, Mapping) and kind in ("text", "refusal") else None
    if not isinstance(text, str):
        raise ValueError(
            f"the content has a part of type {kind!r}, and potstill reads text only. Leave out images, sounds and files"
        )
    return text
