"""Requests of OpenAI's API: what is accepted, what is ignored, and what llama.cpp is asked for them.

A field that this server does not know is refused, because an option without effect would be lost silently. llama.cpp's
own options are not passed on: some of them read files, hold slots or return other users' prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from potstill.apps.serve.errors import ApiError, bad_request
from potstill.core.errors import DataError
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.messages import Message
from potstill.core.records import first_problem
from potstill.core.tools import Tool, argument_validators, canonical_tools, schema_validator
from potstill.core.words import nearest_hint, printable

__all__ = ["ChatRequest", "CompletionRequest", "parse_chat", "parse_completion"]

_WITHOUT_EFFECT = (
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user",
    "verbosity",
)  # fmt: skip
"""Fields that say nothing about the answer."""
_MOST_TOOLS, _MOST_STOPS = 128, 16
_MOST_SCHEMA_BYTES = 128 << 10
"""Limit of the tools or the schema of a request, because compiled ones are kept for later requests."""
_Stop = Annotated[str, Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _StreamOptions(_Part):
    include_usage: bool = False
    include_obfuscation: bool = False


class _FunctionName(_Part):
    name: str


class _NamedTool(_Part):
    type: Literal["function"]
    function: _FunctionName


class _PlainText(_Part):
    type: Literal["text"]


class _AnyJson(_Part):
    type: Literal["json_object"]


class JsonSchema(_Part):
    """A schema that an answer must fit."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class _SchemaFormat(_Part):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class _Request(_Part):
    """Fields that both kinds of request have."""

    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 30)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: tuple[_Stop, ...] = Field(default=(), max_length=_MOST_STOPS)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    n: Literal[1] = 1

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def upstream(self, max_tokens: int) -> dict[str, Any]:
        """The fields of llama.cpp's request that both kinds have."""
        body: dict[str, Any] = {
            "max_tokens": min(self.max_tokens or max_tokens, max_tokens),
            "temperature": self.temperature,
            "samplers": ["temperature", "top_p"],
            "top_p": self.top_p,
            "cache_prompt": True,
        }
        if self.seed is not None:
            body["seed"] = self.seed & 0xFFFFFFFF
        if self.stop:
            body["stop"] = list(self.stop)
        if self.presence_penalty or self.frequency_penalty:
            body |= {"presence_penalty": self.presence_penalty, "frequency_penalty": self.frequency_penalty}
            body["samplers"] = ["penalties", *body["samplers"]]
        return body


class ChatRequest(_Request):
    """A request for a chat completion.

    Greedy decoding is the default, because it is how a package is judged.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["none", "auto", "required"] | _NamedTool = "auto"
    parallel_tool_calls: bool = True
    response_format: Annotated[_PlainText | _AnyJson | _SchemaFormat, Field(discriminator="type")] | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 30)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _goes_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice is required, and the request has no tools")
        if isinstance(self.tool_choice, _NamedTool) and not self.offered:
            raise ValueError("tool_choice names a tool that the request does not have")
        return self

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that may be called; `tool_choice` may name one, or say that none may be."""
        if self.tool_choice == "none":
            return ()
        if isinstance(self.tool_choice, str):
            return self.tools
        return tuple(tool for tool in self.tools if tool["function"]["name"] == self.tool_choice.function.name)

    @property
    def must_call(self) -> bool:
        """Whether an answer without a call is wrong."""
        return self.tool_choice not in ("none", "auto")

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The JSON Schema that the answer must fit; None where it need not be JSON."""
        if isinstance(self.response_format, _SchemaFormat):
            return self.response_format.json_schema.schema_
        return {"type": "object"} if isinstance(self.response_format, _AnyJson) else None

    def upstream(self, max_tokens: int) -> dict[str, Any]:
        """What llama.cpp is asked."""
        body = super().upstream(max_tokens)
        body["max_tokens"] = min(self.max_completion_tokens or body["max_tokens"], max_tokens)
        return body | self._asked()

    def for_endpoint(self, max_tokens: int) -> dict[str, Any]:
        """What another OpenAI-compatible endpoint is asked for the same answer, but for its model's name."""
        limit = min(self.max_completion_tokens or self.max_tokens or max_tokens, max_tokens)
        return self._asked() | {"max_tokens": limit}

    def _asked(self) -> dict[str, Any]:
        """Conversation, tools and format, in the same words for every endpoint."""
        body: dict[str, Any] = {"messages": [message.for_api() for message in self.messages]}
        if self.offered:
            # llama.cpp ignores a tool that `tool_choice` names, so it is given this tool only
            body |= {"tools": list(self.offered), "parallel_tool_calls": self.parallel_tool_calls}
            body["tool_choice"] = "required" if self.must_call else "auto"
        if self.answer_schema is not None:
            schema = {"name": "answer", "schema": self.answer_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


class CompletionRequest(_Request):
    """A request for the continuation of a text."""

    prompt: str = Field(min_length=1)
    max_tokens: int | None = Field(default=16, ge=1, le=1 << 30)
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: Literal[False] = False
    best_of: Literal[1] = 1
    suffix: None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: Any) -> Any:
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    def upstream(self, max_tokens: int) -> dict[str, Any]:
        """What llama.cpp is asked."""
        body = super().upstream(max_tokens) | {"prompt": self.prompt}
        if self.logprobs is not None:
            body["logprobs"] = max(self.logprobs, 1)
        return body


RequestT = TypeVar("RequestT", bound=_Request)


def parse_chat(text: bytes, model: str) -> ChatRequest:
    """A chat request from the bytes of its body; `model` is the name of the model that is served.

    Raises:
        ApiError: it is not a request that this server answers.
    """
    value = _object(text)
    if value.get("tools", []) != []:
        value["tools"] = _tools(value["tools"])
    request = _validated(ChatRequest, value)
    _require_model(request.model, model)
    if request.answer_schema is not None:
        _require_small(request.answer_schema, "response_format")
        try:
            schema_validator(request.answer_schema)
        except ValueError as error:
            message = f"response_format: not a valid JSON Schema: {printable(str(error), 600)}."
            raise bad_request(message, param="response_format") from None
    return request


def parse_completion(text: bytes, model: str) -> CompletionRequest:
    """A text completion's request from the bytes of its body; see `parse_chat`."""
    request = _validated(CompletionRequest, _object(text))
    _require_model(request.model, model)
    return request


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = read_strictly(text.decode())
    except UnicodeDecodeError as error:
        raise bad_request(f"The body is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except BadJson as error:
        raise bad_request(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise bad_request("The body must be a JSON object.")
    return {key: item for key, item in value.items() if item is not None and key not in _WITHOUT_EFFECT}


def _tools(given: Any) -> tuple[Tool, ...]:
    """The tools of a request, in the shape in which the model was trained on tools."""
    if not isinstance(given, list) or len(given) > _MOST_TOOLS:
        raise bad_request(f"tools must be a list of at most {_MOST_TOOLS} tools.", param="tools")
    _require_small(given, "tools")
    try:
        tools = canonical_tools(given, "tools")
        argument_validators(tools, "tools")
    except DataError as error:
        raise bad_request(printable(str(error), 600), param="tools") from None
    return tools


def _require_small(value: Any, param: str) -> None:
    if len(json.dumps(value)) > _MOST_SCHEMA_BYTES:
        raise bad_request(f"{param} has more than {_MOST_SCHEMA_BYTES:,} bytes.", param=param)


def _validated(kind: type[RequestT], value: Mapping[str, Any]) -> RequestT:
    for key in value:
        if key not in kind.model_fields:
            known = sorted(kind.model_fields)
            message = f"Unknown field {printable(repr(key), 80)}; {nearest_hint(key, known, 'this server accepts')}"
            message = message if message.endswith("?") else f"{message}."
            raise bad_request(message, code="unknown_parameter", param=printable(key, 80))
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        param = str(error.errors(include_url=False)[0]["loc"][0]) if error.errors()[0]["loc"] else None
        raise bad_request(f"The request is not valid: {printable(first_problem(error), 600)}.", param=param) from None


def _require_model(asked: str, served: str) -> None:
    if asked != served:
        message = f"The model {printable(repr(asked), 120)} is not served here. Ask for {served!r}."
        raise ApiError(404, "invalid_request_error", message, code="model_not_found", param="model")
