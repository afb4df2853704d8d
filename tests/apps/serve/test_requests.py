"""Whatever a body holds, it is a request that llama.cpp can be asked, or one error."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import TOOLS
from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.requests import ChatRequest, parse_chat, parse_completion
from potstill.apps.serve.server import serve
from potstill.apps.serve.settings import Settings
from potstill.core.errors import StepError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_one_error(body: bytes) -> None:
    for parse in (parse_chat, parse_completion):
        with pytest.raises(ApiError) as error:
            parse(body, "m")
        assert error.value.status in (400, 404) and "\n" not in str(error.value)


@given(st.sampled_from(sorted(ChatRequest.model_fields)), VALUES)
def test_any_value_of_a_field_is_accepted_or_refused(field: str, value: Any) -> None:
    try:
        request = parse_chat(json.dumps(CHAT | {"tools": TOOLS} | {field: value}).encode(), "m")
    except ApiError as refused:
        error = refused
    else:
        asked = request.upstream(100)
        json.dumps(asked, allow_nan=False)
        assert 1 <= asked["max_tokens"] <= 100
        return
    assert error.status in (400, 404) and str(error).endswith(".")


def parsed(**more: Any) -> dict[str, Any]:
    return parse_chat(json.dumps(CHAT | more).encode(), "m").upstream(100)


def test_what_llama_cpp_is_asked() -> None:
    assert parsed()["temperature"] == 0 and parsed()["max_tokens"] == 100
    assert parsed(max_tokens=7)["max_tokens"] == parsed(max_completion_tokens=7)["max_tokens"] == 7
    assert parsed(stop="a")["stop"] == ["a"]
    assert parsed(user="u", store=True) == parsed()
    assert "tools" not in parsed(tools=TOOLS, tool_choice="none")
    two = [*TOOLS, {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}]
    named = parsed(tools=two, tool_choice={"type": "function", "function": {"name": "other"}})
    assert [tool["function"]["name"] for tool in named["tools"]] == ["other"] and named["tool_choice"] == "required"
    assert parsed(frequency_penalty=1.0)["samplers"][0] == "penalties"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"logit_bias": {}}, "Unknown field 'logit_bias'; did you mean 'logprobs'?"),
        ({"tools": {}}, "tools must be a list of at most 128 tools."),
        ({"tools": ""}, "tools must be a list of at most 128 tools."),
        ({"messages": {}}, "The request is not valid: messages: Input should be a list."),
    ],
)
def test_an_error_is_a_sentence_about_json(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as error:
        parsed(**more)
    assert str(error.value) == message


def test_a_port_that_is_taken_is_named_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StepError) as error:
            serve(Settings(tmp_path, port=port), lambda *_: None, lambda _: None)
    assert str(error.value).startswith(f"127.0.0.1:{port}: cannot listen there (Address already in use). Choose")


def test_an_address_of_no_machine_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^999\.1\.1\.1:0: cannot listen there \((?!Unknown error)[^()]+\)\. Choose"):
        serve(Settings(tmp_path, "999.1.1.1", 0, keys=frozenset({"k" * 16})), lambda *_: None, lambda _: None)
