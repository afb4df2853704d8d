"""Whatever a body holds, it is a request that llama.cpp can be asked, or one error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import TOOLS
from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.requests import ChatRequest, parse_chat, parse_completion

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
