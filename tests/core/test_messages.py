"""Messages as people have them are read in one shape, or refused with what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from potstill.core.messages import Call, Message, ToolCall
from potstill.core.records import first_problem

CALL = {"id": "call_abc", "type": "function", "function": {"name": "set_light", "arguments": '{"room": "hall"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def read(value: Any) -> Message:
    return Message.model_validate(value)


def refused(value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        read(value)
    return first_problem(caught.value)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"refusal": None, "annotations": [], "audio": None, "function_call": None, **CALLS}, CALLS),
        (CALLS | {"tool_calls": [CALL | {"index": 0}]}, CALLS),
        (CALLS | {"name": None, "tool_call_id": None, "thoughts": None}, CALLS),
        (
            {"role": "assistant", "function_call": {"name": "set_light", "arguments": '{"room": "hall"}'}},
            CALLS | {"tool_calls": [CALL | {"id": None}]},
        ),
        (
            {"role": "function", "name": "set_light", "content": "done"},
            {"role": "tool", "name": "set_light", "content": "done"},
        ),
        ({"role": "assistant", "refusal": "I cannot."}, {"role": "assistant", "content": "I cannot."}),
        (
            {"role": "user", "content": [{"type": "text", "text": "on"}, {"type": "text", "text": "now"}]},
            {"role": "user", "content": "on\nnow"},
        ),
        ({"role": "user", "content": "hi", "tool_calls": None}, {"role": "user", "content": "hi"}),
        (
            {"role": "assistant", "content": "4", "reasoning": "2 + 2"},
            {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"},
        ),
        (
            CALLS | {"tool_calls": [CALL | {"function": {"name": "set_light", "arguments": {"room": "hall"}}}]},
            CALLS,
        ),
        (
            CALLS | {"tool_calls": [{"function": {"name": "all_off", "arguments": ""}}]},
            CALLS | {"tool_calls": [{"function": {"name": "all_off"}}]},
        ),
    ],
)
def test_messages_of_one_meaning_are_one_message(given: Any, same: Any) -> None:
    assert read(given) == read(same)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"role": "user", "contents": "hi"}, "unknown key 'contents'; did you mean 'content'?"),
        ({"role": "user", "content": "hi", "weight": 1}, "unknown key 'weight'; known keys are role, content, "),
        (CALLS | {"tool_calls": [CALL | {"sort": "x"}]}, "tool_calls.0: unknown key 'sort'; known keys are id, "),
        (
            CALLS | {"tool_calls": [CALL | {"function": {"nam": "x"}}]},
            "function: unknown key 'nam'; did you mean 'name'?",
        ),
        (CALLS | {"function_call": {"name": "a", "arguments": "{}"}}, "both function_call and tool_calls"),
        ({"role": "user", "content": None}, "the message of role user has no content. Write its text"),
        ({"role": "tool", "tool_call_id": "x"}, "the message of role tool has no content."),
        ({"role": "assistant", "content": None, "tool_calls": []}, "has no content, and no tool_calls."),
        ({"role": "user", "content": "hi", "tool_calls": [CALL]}, "of role user cannot call tools"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "a part of type 'image_url'"),
        ({"role": "user", "content": 5}, "content: Input should be a valid string"),
    ],
)
def test_what_cannot_be_meant_is_named(value: Any, says: str) -> None:
    assert says in refused(value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("null", "must be a JSON object, found null"),
        (None, "must be a JSON object, found null"),
        ("[1]", r"must be a JSON object, found [1]"),
        ([1], r"must be a JSON object, found [1]"),
        ('{"room', "are not valid JSON (Unterminated string"),
        ('{"x": NaN}', "not valid JSON (NaN"),
        ('{"x": ' + "1" * 5000 + "}", "too many digits"),
        ('{"x": ' + "[" * 100_000, "nested too deeply"),
        ('{"x": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_arguments_that_are_no_object_are_refused(arguments: Any, says: str) -> None:
    call = CALL | {"function": {"name": "set_light", "arguments": arguments}}
    assert says in refused(CALLS | {"tool_calls": [call]})


def test_a_call_keeps_its_id_and_its_arguments() -> None:
    message = read(CALLS)
    assert message.tool_calls[0].id == "call_abc"
    assert message.for_template()["tool_calls"][0]["id"] == "call_abc"
    assert message.for_template()["tool_calls"][0]["function"]["arguments"] == {"room": "hall"}
    assert message.for_api()["tool_calls"] == [CALL]
    assert read(json.loads(message.model_dump_json())) == message
    call = Call(name="set_light", arguments={"room": "Küche", "level": 1.5})
    assert ToolCall.of(call).call == call
    assert ToolCall.of(call).function.arguments == '{"room": "Küche", "level": 1.5}'
