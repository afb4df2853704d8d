"""Replies of OpenAI's API: whole ones, chunks of a stream, and what is said in place of an answer that is withheld."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from potstill.apps.serve.requests import ChatRequest, CompletionRequest
from potstill.components.deferral.decisions import Action, Decision

__all__ = ["answer_reply", "as_chunks", "completion_reply", "decision_fields", "event", "withheld_reply"]

WORDS: dict[Action, str] = {
    "clarify": "I am not sure what you mean. Please say it in another way.",
    "defer": "I am not sure enough to answer this, so I leave it to someone who can.",
    "escalate": "",
    "abstain": "",
}
"""What the assistant says where its answer is withheld."""
DONE = b"data: [DONE]\n\n"


def answer_reply(reply: dict[str, Any], request: ChatRequest, model: str, decision: Decision) -> dict[str, Any]:
    """The model's answer as the client asked for it: with log-probabilities only if it wants them."""
    choices = []
    for given in reply["choices"]:
        choice = {"index": given["index"], "message": given["message"], "finish_reason": given["finish_reason"]}
        choice["logprobs"] = _log_probs(given.get("logprobs"), request) if request.logprobs else None
        choices.append(choice)
    return _whole(model, choices, reply["usage"], decision)


def withheld_reply(model: str, decision: Decision, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """A reply without the model's answer, in words that a client can show."""
    message = {"role": "assistant", "content": WORDS[decision.action]}
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _whole(model, [choice], usage, decision)


def _whole(model: str, choices: list[dict[str, Any]], usage: dict[str, Any], decision: Decision) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
        "potstill": decision_fields(decision),
    }


def decision_fields(decision: Decision) -> dict[str, Any]:
    """What a reply says about its decision, in the object `potstill`, which OpenAI's clients ignore."""
    return {
        "decision": decision.action,
        "reason": decision.reason,
        "score": decision.score,
        "promise": decision.promise,
    }


def _log_probs(given: dict[str, Any] | None, request: ChatRequest) -> dict[str, Any]:
    wanted = request.top_logprobs or 0
    entries = (given or {}).get("content") or []
    keys = ("token", "bytes", "logprob")
    return {
        "content": [
            {key: entry.get(key) for key in keys}
            | {"top_logprobs": [{key: top.get(key) for key in keys} for top in entry["top_logprobs"][:wanted]]}
            for entry in entries
        ],
        "refusal": None,
    }


# ---- streams ----


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def as_chunks(reply: dict[str, Any], *, usage: bool) -> Iterator[bytes]:
    """A whole reply as the events of a stream; `usage` adds the event that counts tokens."""
    base = {key: reply[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None} | more
        return event(base | {"choices": [choice], "usage": None})

    choice = reply["choices"][0]
    message, log_probs = choice["message"], choice["logprobs"]
    yield chunk({"role": "assistant", "content": ""})
    if message.get("reasoning_content"):
        yield chunk({"reasoning_content": message["reasoning_content"]})
    if message.get("content") or log_probs:
        yield chunk({"content": message.get("content") or ""}, logprobs=log_probs)
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, choice["finish_reason"])
    if usage:
        yield event(base | {"choices": [], "usage": reply["usage"]})
    yield DONE


def completion_reply(reply: dict[str, Any], request: CompletionRequest, model: str) -> dict[str, Any]:
    """A text completion; llama.cpp's log-probabilities are in the format of chats, and clients expect the older one."""
    choices = []
    for given in reply["choices"]:
        choice = {"index": 0, "text": given["text"], "finish_reason": given["finish_reason"], "logprobs": None}
        entries = (given.get("logprobs") or {}).get("content")
        if request.logprobs is not None and entries is not None:
            choice["logprobs"] = _old_log_probs(entries, request.logprobs)
        choices.append(choice)
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": reply["usage"],
    }


def _old_log_probs(entries: list[dict[str, Any]], wanted: int) -> dict[str, Any]:
    offsets, at = [], 0
    for entry in entries:
        offsets.append(at)
        at += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"][:wanted]} for entry in entries],
        "text_offset": offsets,
    }
