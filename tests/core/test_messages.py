"""Messages as people have them are read in one shape, or refused with what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from potstill.core.messages import Call, Message, ToolCall, with_call_ids
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
    assert message.for_template("text")["tool_calls"][0]["function"]["arguments"] == '{"room": "hall"}'
    assert message.for_api()["tool_calls"] == [CALL]
    assert read(json.loads(message.model_dump_json())) == message
    call = Call(name="set_light", arguments={"room": "Küche", "level": 1.5})
    assert ToolCall.of(call).call == call
    assert ToolCall.of(call).function.arguments == '{"room": "Küche", "level": 1.5}'


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ('{"level": 40.0}', '{"level": 40}'),
        ('{"a":[1.0,"1.0",2.5]}', '{"a": [1, "1.0", 2.5]}'),
        ('{"version":"1.5.2","b":1}', '{"version":"1.5.2","b":1}'),
    ],
)
def test_whole_numbers_in_arguments_are_written_as_llama_cpp_does(text: str, read_as: str) -> None:
    call = CALL | {"function": {"name": "f", "arguments": text}}
    assert read(CALLS | {"tool_calls": [call]}).tool_calls[0].function.arguments == read_as


# ---- ids of calls ----


def calls(*ids: str | None, name: str = "f") -> Message:
    return read({"role": "assistant", "tool_calls": [{"id": i, "function": {"name": name}} for i in ids]})


def result(call_id: str | None = None, name: str | None = None) -> Message:
    return read({"role": "tool", "content": "r", "tool_call_id": call_id, "name": name})


def ids(messages: tuple[Message, ...]) -> list[Any]:
    return [m.tool_call_id if m.role == "tool" else [c.id for c in m.tool_calls] for m in messages]


@pytest.mark.parametrize(
    ("messages", "any_form", "nine"),
    [
        ([calls("call_abc"), result("call_abc")], [["call_abc"], "call_abc"], [["call00000"], "call00000"]),
        ([calls("abcDEF123"), result("abcDEF123")], [["abcDEF123"], "abcDEF123"], [["abcDEF123"], "abcDEF123"]),
        (
            [calls(None, None), result(), result(), calls(None), result()],
            [["call_0", "call_1"], "call_0", "call_1", ["call_2"], "call_2"],
            [["call00000", "call00001"], "call00000", "call00001", ["call00002"], "call00002"],
        ),
        (
            [calls("a", "b"), result("b"), result("a")],
            [["a", "b"], "b", "a"],
            [["call00000", "call00001"], "call00001", "call00000"],
        ),
        (
            [calls("call_0", None), result()],
            [["call_0", "call_1"], "call_0"],
            [["call00000", "call00001"], "call00000"],
        ),
        ([calls("a"), result()], [["a"], "a"], [["call00000"], "call00000"]),
        ([result("lost"), result()], ["lost", None], ["lost", None]),
    ],
)
def test_calls_and_their_results_have_one_id(messages: list[Message], any_form: list[Any], nine: list[Any]) -> None:
    assert ids(with_call_ids(messages)) == any_form
    assert ids(with_call_ids(messages, "nine")) == nine
    assert with_call_ids(with_call_ids(messages, "nine"), "nine") == with_call_ids(messages, "nine")


def test_a_result_with_a_name_answers_the_call_of_that_name() -> None:
    two = read({"role": "assistant", "tool_calls": [{"function": {"name": name}} for name in ("f", "g")]})
    assert ids(with_call_ids([two, result(name="g"), result(name="f")])) == [["call_0", "call_1"], "call_1", "call_0"]
