"""Parsers of tool calls: what templates write is read back, and what is broken is never read as "no call"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.components.chat.tool_calls import PARSERS, parse_answer
from potstill.core.errors import UsageError
from potstill.core.records import Call


def call(name: str, **arguments: Any) -> Call:
    return Call(name=name, arguments=arguments)


def hermes(*calls: Call) -> str:
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': c.name, 'arguments': c.arguments})}\n</tool_call>" for c in calls
    )


def llama3(*calls: Call) -> str:
    return "; ".join(json.dumps({"name": c.name, "parameters": c.arguments}) for c in calls)


def mistral(*calls: Call) -> str:
    return "[TOOL_CALLS] " + json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
any_calls = st.lists(
    st.builds(Call, name=st.text(min_size=1, max_size=8), arguments=st.dictionaries(st.text(max_size=5), json_values)),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(any_calls, st.sampled_from([("hermes", hermes), ("llama3", llama3), ("mistral", mistral)]))
def test_what_a_template_writes_is_read_back(calls: list[Call], form: Any) -> None:
    name, write = form
    text = write(*calls)
    for chosen in (name, "auto"):
        answer = parse_answer(text, chosen)
        assert answer.parse_error is None
        assert list(answer.calls) == calls
        assert answer.content == ""


@settings(max_examples=120, deadline=None)
@given(st.text(), st.sampled_from(["auto", *PARSERS]))
def test_no_text_raises(text: str, form: str) -> None:
    answer = parse_answer(text, form)
    assert answer.parse_error is None or answer.parse_error


@settings(max_examples=120, deadline=None)
@given(any_calls, st.data())
def test_a_truncated_answer_is_never_a_clean_one_without_calls(calls: list[Call], data: st.DataObject) -> None:
    """Cut anywhere after the marker: either an error, or the calls that were finished, as they were written."""
    for write, marker in ((hermes, "<tool_call>"), (llama3, '{"'), (mistral, "[TOOL_CALLS]")):
        text = write(*calls)
        cut = data.draw(st.integers(len(marker), len(text) - 1))
        answer = parse_answer(text[:cut])
        assert answer.parse_error is not None or 0 < len(answer.calls) < len(calls)
        assert list(answer.calls) == calls[: len(answer.calls)]


def test_hermes_keeps_the_words_and_a_marker_inside_a_string() -> None:
    quoted = call("say", text="</tool_call> is a tag")
    answer = parse_answer(f"On it.\n{hermes(quoted)}\nDone.")
    assert answer == parse_answer(f"On it.\n{hermes(quoted)}\nDone.", "qwen")
    assert answer.calls == (quoted,)
    assert answer.content == "On it.\nDone."


def test_llama_tag_marks_a_call_with_words_before_it() -> None:
    answer = parse_answer("Sure. <|python_tag|>" + llama3(call("a", x=1), call("b")))
    assert answer.calls == (call("a", x=1), call("b"))
    assert answer.content == "Sure."


def test_calls_before_an_error_are_kept() -> None:
    answer = parse_answer(hermes(call("all_off")) + "<tool_call>{oops</tool_call>")
    assert answer.calls == (call("all_off"),)
    assert answer.parse_error


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Which room?",
        '{"city": "Paris"}',
        '{"name": "Anna", "age": 3}',
        "{x : x > 0}",
        "[1, 2]",
        "a < b; c > d",
        "5",
    ],
)
def test_words_are_not_calls(text: str) -> None:
    answer = parse_answer(text)
    assert (answer.calls, answer.content, answer.parse_error) == ((), text, None)


def test_reasoning_is_not_part_of_the_answer() -> None:
    answer = parse_answer("<think>maybe <tool_call> or not</think>\n\nI cannot do that.")
    assert (answer.calls, answer.content, answer.parse_error) == ((), "I cannot do that.", None)


def test_unknown_format_is_told() -> None:
    with pytest.raises(UsageError, match="hermes, qwen, llama3, mistral"):
        parse_answer("x", "gpt")
