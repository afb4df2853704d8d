"""Requests from logs: chat completions, the responses API, and a proxy's pairs of request and response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from potstill.apps.init.sources.found import Request
from potstill.core.errors import DataError
from potstill.core.json_values import BadJson, read_strictly
from potstill.core.records import parse_row

__all__ = ["is_logged", "read_logged"]

_REQUESTS = ("request", "request_body", "requestBody", "req")
_RESPONSES = ("response", "response_body", "responseBody", "resp")
_MESSAGE_KEYS = (
    "role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning", "name",
    "tool_call_id",
)  # fmt: skip
_CONVERSATIONS = ("conversation_id", "session_id", "thread_id", "group")
_TIMES = ("created", "created_at", "timestamp", "time", "start_time")


def is_logged(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is an entry of a log, and not a row that somebody wrote."""
    asked = "messages" in value or "input" in value or any(key in value for key in _REQUESTS)
    answered = isinstance(value.get("choices"), list) or isinstance(value.get("output"), list)
    return asked and (answered or "model" in value or any(key in value for key in _RESPONSES))


def read_logged(value: Mapping[str, Any], where: str) -> Request:
    """The request of an entry, with its answer where it has one.

    Raises:
        DataError: the entry has no prompt, the request failed, or the conversation is not text alone.
    """
    asked, given = _body(value, _REQUESTS, where), _body(value, _RESPONSES, where)
    messages = _prompt(asked, where)
    answer, finish = _answer(given, where)
    tools = asked.get("tools") or asked.get("functions")
    model = _first_text((given, asked, value), ("model",))
    provenance = {"model": model, "finish_reason": finish}
    row = parse_row(
        {
            "messages": messages,
            "completion": answer,
            "tools": [_chat_tool(tool) for tool in _listed(tools) if isinstance(tool, Mapping)],
            "group": _first_text((value, asked), _CONVERSATIONS),
            "provenance": {key: each for key, each in provenance.items() if each is not None},
        },
        (),
        False,
        where,
    )
    usage = given.get("usage") or {}
    return Request(
        row,
        logged=True,
        model=model,
        prompt_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        completion_tokens=_count(usage, "completion_tokens", "output_tokens"),
        time=next(_times((given, value, asked)), None),
        wants_json=_wants_json(asked),
    )


def _body(value: Mapping[str, Any], names: Iterable[str], where: str) -> Mapping[str, Any]:
    """The body of a request or of a response, which may be JSON text or lie under `body`; else the entry itself."""
    body: Any = next((value[name] for name in names if value.get(name) is not None), value)
    while True:
        if isinstance(body, str):
            try:
                body = read_strictly(body)
            except BadJson:
                raise DataError(f"{where}: the body of the request or of the response is not valid JSON.") from None
        if not isinstance(body, Mapping):
            raise DataError(f"{where}: the body of the request or of the response must be a JSON object.")
        status = body.get("status_code")
        if body.get("error") or (isinstance(status, int) and status >= 400):
            raise DataError(f"{where}: the request failed.")
        if "body" not in body:
            return body
        body = body["body"]


def _prompt(asked: Mapping[str, Any], where: str) -> list[Any]:
    if isinstance(asked.get("messages"), list):
        return [_message(each) for each in asked["messages"]]
    given = asked.get("input")
    if isinstance(given, Mapping) and isinstance(given.get("messages"), list):
        return [_message(each) for each in given["messages"]]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise DataError(f"{where}: the request has neither messages nor an input.")
    system = [{"role": "system", "content": asked["instructions"]}] if asked.get("instructions") else []
    return system + _messages_of_items(items)


def _answer(given: Mapping[str, Any], where: str) -> tuple[Any, str | None]:
    """The answer as a message and its finish reason; None twice where it is the last of the messages, or absent."""
    choices = given.get("choices")
    if isinstance(choices, list):
        if not choices or not isinstance(choices[0], Mapping) or not isinstance(choices[0].get("message"), Mapping):
            raise DataError(f"{where}: the response has no choices.")
        return _message(choices[0]["message"]), choices[0].get("finish_reason")
    output = given.get("output")
    if isinstance(output, list):
        messages = _messages_of_items(output)
        if not messages:
            raise DataError(f"{where}: the response has no message.")
        cut = given.get("status") == "incomplete"
        return messages[-1], "length" if cut else "stop"
    if given.get("role") == "assistant":
        return _message(given), None
    return None, None


def _message(value: Any) -> Any:
    """A message without the keys that say nothing about the conversation."""
    return {key: value[key] for key in _MESSAGE_KEYS if key in value} if isinstance(value, Mapping) else value


def _messages_of_items(items: Iterable[Any]) -> list[dict[str, Any]]:
    """The items of the responses API as messages; calls that follow each other belong to one message."""
    out: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type", "message") if isinstance(item, Mapping) else None
        if kind == "message":
            out.append({"role": item.get("role"), "content": _text_of_parts(item.get("content"))})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if not out or "tool_calls" not in out[-1]:
                out.append({"role": "assistant", "content": None, "tool_calls": []})
            out[-1]["tool_calls"].append(call)
        elif kind == "function_call_output":
            out.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif kind != "reasoning":
            raise ValueError(f"the conversation has an item of type {kind!r}, and potstill trains on text alone")
    return out


def _text_of_parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [{**part, "type": "text"} if _is_text_part(part) else part for part in content]


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("input_text", "output_text", "summary_text")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of the responses API, which has its name at the top, as one of chat completions."""
    if "function" in tool or "name" not in tool:
        return dict(tool)
    return {key: tool[key] for key in ("name", "description", "parameters") if key in tool}


def _first_text(places: Iterable[Mapping[str, Any]], names: Iterable[str]) -> str | None:
    found = (place.get(name) for place in places for name in names)
    return next((str(each) for each in found if isinstance(each, str | int) and each != ""), None)


def _count(usage: Any, *names: str) -> int | None:
    values = [usage.get(name) for name in names] if isinstance(usage, Mapping) else []
    return next((value for value in values if isinstance(value, int)), None)


def _times(places: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Moments in seconds since 1970, from numbers (also in milliseconds) or ISO 8601 texts."""
    for value in (place.get(name) for place in places for name in _TIMES):
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield value / 1000 if value > 1e11 else float(value)
        elif isinstance(value, str):
            try:
                yield datetime.fromisoformat(value).timestamp()
            except (ValueError, OverflowError):
                continue


def _wants_json(asked: Mapping[str, Any]) -> bool:
    wanted = asked.get("response_format") or (asked.get("text") or {})
    if isinstance(wanted, Mapping) and isinstance(wanted.get("format"), Mapping):
        wanted = wanted["format"]
    return isinstance(wanted, Mapping) and wanted.get("type") in ("json_object", "json_schema")
