"""One answer of the model: asked for, read, and checked against what the request allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.requests import ChatRequest
from potstill.apps.serve.upstream import Unreadable, Upstream
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.attempts import has_attempt
from potstill.components.checkers.schema import schema_valid
from potstill.components.deferral.decisions import Problem
from potstill.components.deferral.scores import ScoredToken, score_answer
from potstill.components.runtimes.chat_reply import ChatCompletion, TokenLogProb
from potstill.core.artifacts.policy import ScoreName
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.tools import schema_validator

__all__ = ["Attempt", "ask_model", "ask_twice", "find_problem"]

CHAT = "/v1/chat/completions"
_LOWEST = -104.0
"""Log-probability below which a probability is no 32-bit float; llama.cpp then gives the lowest float."""
_AGAIN = {"temperature": 0.7, "seed": 1}
"""How an answer that failed is asked for again: at temperature 0 it would be the same."""


@dataclass(frozen=True)
class Attempt:
    """An answer of the model.

    reply      the chat completion as llama.cpp returns it; None where it cannot read the answer
    problem    why the answer is not given, whatever its confidence; None for one that fits the request
    scores     confidence by the name of the score; empty without log-probabilities
    repaired   the first answer failed, and this is the second
    """

    reply: dict[str, Any] | None
    parsed: ParsedAnswer
    problem: Problem | None
    scores: Mapping[ScoreName, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    repaired: bool = False


async def ask_twice(upstream: Upstream, request: ChatRequest, max_tokens: int, *, scored: bool) -> Attempt:
    """The answer to a request; one that cannot be read or does not fit the request is asked for once more."""
    first = await ask_model(upstream, request, max_tokens, scored=scored)
    if first.problem is None:
        return first
    second = await ask_model(upstream, request, max_tokens, scored=scored, changes=_AGAIN)
    return Attempt(
        second.reply,
        second.parsed,
        second.problem,
        second.scores,
        second.prompt_tokens or first.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
        second.finish_reason,
        repaired=True,
    )


async def ask_model(
    upstream: Upstream, request: ChatRequest, max_tokens: int, *, scored: bool, changes: Mapping[str, Any] | None = None
) -> Attempt:
    """One answer to a request.

    Args:
        upstream: where llama.cpp is.
        request: the request.
        max_tokens: limit of the answer's tokens.
        scored: ask for log-probabilities, for the confidence.
        changes: other sampling than the request's.

    Raises:
        ApiError: llama.cpp does not answer the request.
    """
    body = request.upstream(max_tokens) | dict(changes or {})
    if scored or request.logprobs:
        # for the margin, the likeliest two are needed
        body |= {"logprobs": True, "top_logprobs": max(request.top_logprobs or 0, 2)}
    try:
        reply = await upstream.post(CHAT, body)
        completion = ChatCompletion.model_validate(reply)
    except Unreadable:
        return Attempt(None, ParsedAnswer((), "", "unreadable"), "unreadable")
    except ValidationError:
        raise ApiError(500, "server_error", "llama.cpp's reply is not a completion.", code="engine_error") from None
    parsed, choice = completion.parsed, completion.choices[0]
    scores = score_answer([_scored(token) for token in completion.token_log_probs], parsed.calls)
    return Attempt(
        reply,
        parsed,
        find_problem(request, parsed),
        scores,
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
        choice.finish_reason,
    )


def find_problem(request: ChatRequest, answer: ParsedAnswer) -> Problem | None:
    """Why an answer must not be given, whatever its confidence.

    A call must name a tool of the request, and its arguments must fit that tool's schema. A call that stands in the
    words of an answer, in a markup that the runtime does not read, is a failed call and never an answer in words.
    """
    if answer.parse_error is not None:
        return "unreadable"
    if request.offered:
        names = [tool["function"]["name"] for tool in request.offered]
        wrong_number = len(answer.calls) > 1 and not request.parallel_tool_calls
        missing = request.must_call and not answer.calls
        if wrong_number or missing or not schema_valid(answer.calls, request.offered):
            return "invalid_call"
        if not answer.calls and has_attempt(answer.content, names, only_known=request.answer_schema is not None):
            return "invalid_call"
    elif answer.calls:
        return "invalid_call"
    if request.answer_schema is not None and not answer.calls and not _fits(answer.content, request.answer_schema):
        return "invalid_json"
    return None


def _fits(text: str, schema: dict[str, Any]) -> bool:
    try:
        value = read_strictly(text)
    except BadJson:
        return False
    return schema_validator(schema).is_valid(value)


def _scored(token: TokenLogProb) -> ScoredToken:
    own = bytes(byte & 0xFF for byte in token.bytes or ())
    others = [each.logprob for each in token.top_logprobs if each.bytes != token.bytes]
    log_prob = max(token.logprob, _LOWEST)
    margin = log_prob - max(max(others, default=-math.inf), _LOWEST)
    return ScoredToken(own, log_prob, margin)
