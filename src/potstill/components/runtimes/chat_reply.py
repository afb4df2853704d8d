"""The reply of llama.cpp's chat endpoint: the answer as the endpoint read it, and its tokens."""

from __future__ import annotations

from pydantic import BaseModel, Field

from potstill.components.chat.call_values import BadCall, as_call, read_json
from potstill.components.chat.tool_calls import ParsedAnswer

__all__ = ["ChatCompletion", "ChatReply", "TokenLogProb", "cannot_read"]


class _Function(BaseModel):
    name: str
    arguments: str = ""


class _Call(BaseModel):
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    tool_calls: tuple[_Call, ...] = ()


class _Alternative(BaseModel):
    bytes: tuple[int, ...] | None = None
    logprob: float


class TokenLogProb(_Alternative):
    """A token of the answer, its log-probability in nats before sampling, and the likeliest tokens at its place."""

    top_logprobs: tuple[_Alternative, ...] = ()


class _LogProbs(BaseModel):
    content: tuple[TokenLogProb, ...] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str
    logprobs: _LogProbs | None = None


class _Verbose(BaseModel):
    """What `verbose` and `return_tokens` add: the ids of the answer with its end token, and why it ended.

    The prompt is there too, but is not exact: llama.cpp leaves out spaces when it turns the ids back into text.
    """

    tokens: tuple[int, ...]
    stop_type: str


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0


class ChatCompletion(BaseModel):
    """A chat completion of an OpenAI-compatible server."""

    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage

    @property
    def cut_off(self) -> bool:
        """Whether the answer ended for lack of room."""
        return self.choices[0].finish_reason == "length"

    @property
    def parsed(self) -> ParsedAnswer:
        """Calls and words as a user of the endpoint gets them. Reasoning that the endpoint separated is left out."""
        message = self.choices[0].message
        calls = []
        try:
            for call in message.tool_calls:
                text = call.function.arguments.strip() or "{}"
                arguments, end = read_json(text, 0)
                if end != len(text):
                    raise BadCall("text after the arguments of a call")
                calls.append(as_call({"name": call.function.name, "arguments": arguments}))
        except BadCall as bad:
            return ParsedAnswer(tuple(calls), message.content or "", str(bad))
        return ParsedAnswer(tuple(calls), message.content or "")

    @property
    def token_log_probs(self) -> tuple[TokenLogProb, ...]:
        """The tokens of the answer; empty where they were not asked for."""
        given = self.choices[0].logprobs
        return (given.content or ()) if given else ()


class ChatReply(ChatCompletion):
    """A chat completion of llama.cpp's server, asked for with `verbose` and `return_tokens`."""

    verbose: _Verbose = Field(alias="__verbose")


def cannot_read(status: int, reason: str) -> bool:
    """Whether an error of the endpoint says that it cannot read what the model wrote."""
    return status == 500 and any(part in reason.lower() for part in ("model produced output", "parse"))
