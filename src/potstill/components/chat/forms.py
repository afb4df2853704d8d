"""The form in which a chat template wants calls: found by rendering a marked conversation in one form after another.

Most templates take a call's arguments as a mapping, and write them as JSON themselves. Some print them unchanged, so
they must be text. Some write a call only where the content is None. Every call and result gets an id, as in a server.
Mistral's templates reject ids that are not nine letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from potstill.core.messages import ArgumentsForm, Call, IdForm, Message, ToolCall, with_call_ids

__all__ = ["Form", "find_form"]

_IDS: tuple[IdForm, ...] = ("any", "nine")
_ARGUMENTS: tuple[ArgumentsForm, ...] = ("mapping", "text")
_KEY, _VALUE, _TOOL = "zqkey", "zqvalue", "zqtool"
_JSON = re.compile(rf'"{_KEY}"\s*:\s*"{_VALUE}"')
_SPOILT = (f'\\"{_KEY}', f"'{_KEY}'")  # JSON inside a JSON string; a mapping as Python prints it
_CALL = Message(role="assistant", tool_calls=(ToolCall.of(Call(name=_TOOL, arguments={_KEY: _VALUE})),))
_CONVERSATION = (Message(role="user", content="zquser"), _CALL, Message(role="tool", content="zqresult"))
_SCHEMA = {"type": "object", "properties": {_KEY: {"type": "string"}}}
_TOOLS = ({"type": "function", "function": {"name": _TOOL, "description": "", "parameters": _SCHEMA}},)


@dataclass(frozen=True)
class Form:
    """How messages are given to a template.

    arguments   those of calls: a mapping, or JSON text
    no_text     an absent content is None, instead of an empty text
    ids         which ids of calls are taken
    """

    arguments: ArgumentsForm = "mapping"
    no_text: bool = False
    ids: IdForm = "any"

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The conversation in this form."""
        return [self._message(message) for message in with_call_ids(messages, self.ids)]

    def _message(self, message: Message) -> dict[str, Any]:
        out = message.for_template(self.arguments)
        return out | {"content": message.content} if self.no_text else out


def find_form(render: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str]) -> Form:
    """The first form in which a template writes a call with its arguments intact; the usual one where none does.

    Args:
        render: renders messages and tools; it may raise any error.
    """
    usable: list[Form] = []
    for ids, no_text, arguments in product(_IDS, (False, True), _ARGUMENTS):
        form = Form(arguments, no_text, ids)
        found = _rendered(form, render)
        if _JSON.search(found):
            return form
        if _KEY in found.replace(_TOOL, "") and _VALUE in found and not any(mark in found for mark in _SPOILT):
            usable.append(form)
    return usable[0] if usable else Form()


def _rendered(form: Form, render: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str]) -> str:
    """Text of a conversation with a call; without its result where the template refuses results; empty where it fails.

    What the template writes of the tools is left out.
    """
    for messages in (_CONVERSATION, _CONVERSATION[:2]):
        try:
            whole = render(form.messages(messages), list(_TOOLS))
            head = render(form.messages(messages[:1]), list(_TOOLS))
        except Exception:  # a template is a program from outside, and may fail in any way
            continue
        return whole[len(_common(whole, head)) :]
    return ""


def _common(first: str, second: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    return first[: min(len(first), len(second)) if length is None else length]
