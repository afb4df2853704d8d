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


# ---- markups of other models ----

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "pour",
            "parameters": {
                "type": "object",
                "properties": {
                    "drink": {"type": "string"},
                    "cups": {"type": "integer"},
                    "hot": {"type": "boolean"},
                    "extras": {"type": "array"},
                },
            },
        },
    }
]
TEA = call("pour", drink="tea", cups=2)
TEA_JSON = '{"drink": "tea", "cups": 2}'


@pytest.mark.parametrize(
    "text",
    [
        f"[TOOL_CALLS]pour[ARGS]{TEA_JSON}",
        f"[TOOL_CALLS]pour[CALL_ID]abc123XYZ[ARGS]{TEA_JSON}",
        "<tool_call>\n<function=pour>\n<parameter=drink>\ntea\n</parameter>\n<parameter=cups>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        f"<function=pour>{TEA_JSON}</function>",
        "<seed:tool_call><function=pour><parameter=drink>tea</parameter><parameter=cups>2</parameter></function>"
        "</seed:tool_call>",
        '<function_calls>\n<invoke name="pour">\n<parameter name="drink">tea</parameter>\n'
        '<parameter name="cups">2</parameter>\n</invoke>\n</function_calls>',
        "<tool_call>pour\n<arg_key>drink</arg_key>\n<arg_value>tea</arg_value>\n<arg_key>cups</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
        f">>>pour\n{TEA_JSON}",
        '```tool_code\npour(drink="tea", cups=2)\n```',
        '<|tool_call_start|>[pour(drink="tea", cups=2)]<|tool_call_end|>',
        f'<|tool_call|>[{{"name": "pour", "arguments": {TEA_JSON}}}]',
        f'functools[{{"name": "pour", "arguments": {TEA_JSON}}}]',
        f'<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "pour", "parameters": {TEA_JSON}}}]<|END_ACTION|>',
        f'<TOOLCALL>[{{"name": "pour", "arguments": {TEA_JSON}}}]</TOOLCALL>',
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.pour:0<|tool_call_argument_begin|>{TEA_JSON}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>"
        f"pour\n```json\n{TEA_JSON}\n```<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>",
        f"<|channel|>commentary to=functions.pour <|constrain|>json<|message|>{TEA_JSON}<|call|>",
    ],
)
def test_a_call_is_read_in_the_markup_of_other_models(text: str) -> None:
    assert parse_answer(text, tools=TOOLS).calls == (TEA,)
    assert parse_answer(text, tools=TOOLS) == parse_answer(f"<think>hm</think>\n{text}\n", tools=TOOLS)
    assert parse_answer(text, tools=TOOLS).content == ""
    assert parse_answer(text, tools=TOOLS).parse_error is None
    cut = parse_answer(text[: text.rindex("tea")], tools=TOOLS)
    assert cut.parse_error is not None and cut.calls == ()


@pytest.mark.parametrize(
    ("written", "value"),
    [("2", 2), ("2.5", 2.5), ("two", "two"), ('"2"', "2"), ("true", True), ("[1, 2]", [1, 2]), ("[1, 2", "[1, 2")],
)
def test_a_parameter_without_quotation_marks_has_the_type_of_its_schema(written: str, value: Any) -> None:
    def read(key: str) -> Any:
        body = f"<parameter={key}>\n{written}\n</parameter>"
        answer = parse_answer(f"<tool_call><function=pour>{body}</function></tool_call>", tools=TOOLS)
        return answer.calls[0].arguments[key]

    assert read("drink") == written
    assert read("extras") == value and type(read("extras")) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "```tool_code\nprint(pour(cups=2))\n```",
        "```tool_code\npour(cups=1 + 1)\n```",
        "```tool_code\npour(cups=2, cups=3)\n```",
        "```tool_code\npour(cups=1e999)\n```",
        "```tool_code\npour(cups=2)",
        '<function=pour>{"cups": 2, "cups": 3}</function>',
        "<function=pour><parameter=cups>2</parameter><parameter=cups>2</parameter></function>",
        "<function=pour><parameter=cups>2</function>",
        "<function=pour>two cups</function>",
        "functools[]",
        "[TOOL_CALLS]pour[ARGS]{",
        '[TOOL_CALLS]pour[ARGS]{"cups": NaN}',
        ">>>pour\ntwo cups",
    ],
)
def test_a_broken_call_in_other_markup_is_an_error(text: str) -> None:
    answer = parse_answer(text, tools=TOOLS)
    assert answer.calls == ()
    assert answer.parse_error


@pytest.mark.parametrize(
    "text",
    [
        "Write <tool_call> before the JSON.",
        "Wrap it in <tool_call></tool_call>.",
        "The tags `<tool_call>` and `</tool_call>` mark a call.",
        "Start with <tool_call> and end with </tool_call>.",
        "The marker is [TOOL_CALLS] in that model.",
        "a >>> b",
        ">>> means much greater",
    ],
)
def test_a_tag_that_is_spoken_of_opens_no_call(text: str) -> None:
    answer = parse_answer(text, tools=TOOLS)
    assert (answer.calls, answer.content, answer.parse_error) == ((), text, None)


def test_bare_json_with_an_unknown_name_is_words_where_words_may_be_json() -> None:
    person, known = '{"name": "Ann", "parameters": {"age": 3}}', '{"name": "pour", "parameters": {}}'
    assert parse_answer(person, tools=TOOLS, only_known=True).calls == ()
    assert parse_answer(person, tools=TOOLS, only_known=True).content == person
    assert parse_answer(person, tools=TOOLS).calls == (call("Ann", age=3),)
    assert parse_answer(known, tools=TOOLS, only_known=True).calls == (call("pour"),)
    assert parse_answer(known[:-2], tools=TOOLS, only_known=True).parse_error
