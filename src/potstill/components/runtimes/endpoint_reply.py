"""A chat completion of an OpenAI-compatible endpoint, read from the bytes that it sent.

Endpoints send much that OpenAI's API does not: no usage, content in parts, no choices, half of a surrogate pair, half a
body. What cannot be read raises `OddReply`, and nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from potstill.components.runtimes import FinishReason
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.records import FINISHED, first_problem
from potstill.core.words import printable

__all__ = ["Choice", "OddReply", "Reply", "finish_reason", "hermes_text", "read_reply"]

_LONGEST_NAME = 200  # characters
_MOST_TOKENS = 1 << 40  # a count above this is not one


class OddReply(Exception):
    """A reply with status 200 that is not a chat completion; the message is a clause that says what it is."""


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(BaseModel):
    type: str | None = None
    function: _Function | None = None


class _Part(BaseModel):
    type: str
    text: str = ""
    thinking: str | list[_Part] = ""


class Message(BaseModel):
    """The assistant's message. `reasoning_content` is llama.cpp's and DeepSeek's key of the thinking, and `reasoning`
    vLLM's and OpenRouter's; Mistral sends it as a part of the content."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Candidate(BaseModel):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None
    id: Any = None


class _Token(_Candidate):
    top_logprobs: list[_Candidate] | None = None


class _LogProbs(BaseModel):
    content: list[_Token] | None = None
    refusal: list[_Token] | None = None


class Choice(BaseModel):
    """One answer of a chat completion."""

    message: Message
    finish_reason: str | None = None
    logprobs: _LogProbs | None = None


class Reply(BaseModel):
    """A chat completion."""

    choices: list[Choice] = Field(min_length=1)
    usage: Any = None
    model: Any = None

    @property
    def reported_model(self) -> str | None:
        """The model that says it has answered; None where the endpoint names none."""
        return printable(self.model, _LONGEST_NAME) if isinstance(self.model, str) and self.model else None

    def tokens(self, key: str) -> int:
        """A count in `usage`, such as `prompt_tokens`; 0 where the endpoint does not give it."""
        count = self.usage.get(key) if isinstance(self.usage, dict) else None
        return count if isinstance(count, int) and 0 <= count < _MOST_TOKENS else 0


def read_reply(body: bytes) -> Reply:
    """The chat completion in the body of a reply.

    Raises:
        OddReply: it is something else.
    """
    try:
        return Reply.model_validate(read_strictly(body.decode("utf-8")))
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except BadJson as error:
        reason = f"it is not valid JSON: {error}"
    except ValidationError as error:
        reason = printable(first_problem(error))
    raise OddReply(f"{reason}; it begins with {printable(body[:80].decode('utf-8', 'replace'))!r}")


def finish_reason(given: str | None) -> FinishReason:
    """How an answer ended. Endpoints have many reasons of their own, and none at all where a provider broke off."""
    if given in FINISHED:
        return "stop"
    return "length" if given == "length" else "unfinished"


def hermes_text(message: Message, *, thinking: bool = False) -> str:
    """An assistant message as text: its thinking in <think> where wanted, its words, each tool call in Hermes markup.

    Arguments are put in as the endpoint wrote them, so that a broken call is still broken for the parser.
    """
    words, thoughts = _content(message.content)
    words = words or message.refusal or ""
    parts = [words] if words else []
    for call in message.tool_calls or ():
        if call.type not in ("function", None) or call.function is None:
            continue
        arguments = call.function.arguments or ""
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(call.function.name, ensure_ascii=False)
        parts.append(f'<tool_call>\n{{"name": {name}, "arguments": {written.strip() or "{}"}}}\n</tool_call>')
    named = (message.reasoning_content, message.reasoning, thoughts)
    thought = next((text for text in named if isinstance(text, str) and text.strip()), "")
    before = f"<think>\n{thought.strip()}\n</think>\n\n" if thinking and thought else ""
    return before + "\n".join(parts)


def _content(content: str | list[_Part] | None) -> tuple[str, str]:
    """Words and thinking of a message's content."""
    if content is None or isinstance(content, str):
        return content or "", ""
    words = "".join(part.text for part in content if part.type != "thinking")
    return words, "".join(_content(part.thinking)[0] for part in content if part.type == "thinking")
