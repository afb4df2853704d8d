"""Calls in words: in any markup they are calls, and a sentence that names a tool is none."""

from __future__ import annotations

import pytest

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.judge import judge, judge_answer
from potstill.core.records import Behaviour, Gold, GoldCall, Message, Row

ONE = '{"name": "blinds", "arguments": {"to": 50}}'


def row(behaviour: Behaviour, gold: Gold | None = None, completion: str | None = None, tools: bool = True) -> Row:
    functions = [
        {"name": "blinds", "parameters": {"type": "object", "properties": {"to": {"type": "integer"}}}},
        {"name": "stop_all"},
        {"name": "plan"},
    ]
    return Row(
        messages=(Message(role="user", content="do it"),),
        tools=tuple({"type": "function", "function": function} for function in functions) if tools else (),
        behaviour=behaviour,
        gold=gold,
        completion=Message(role="assistant", content=completion) if completion else None,
    )


CALLS = [
    f"<tool_call>\n{ONE}\n</tool_call>",
    f"<tool_call>{ONE}",
    f"<tools>{ONE}</tools>",
    f"<function_call>{ONE}</function_call>",
    f"<function_calls>[{ONE}]</function_calls>",
    f"<tool_use>{ONE}</tool_use>",
    '<function=blinds>{"to": 50}</function>',
    "<tool_call><function=blinds><parameter=to>50</parameter></function></tool_call>",
    '<invoke name="blinds"><parameter name="to">50</parameter></invoke>',
    "<tool_call>blinds<arg_key>to</arg_key><arg_value>50</arg_value></tool_call>",
    f"[TOOL_CALLS] [{ONE}]",
    '[TOOL_CALLS]blinds[ARGS]{"to": 50}',
    f"[TOOL_REQUEST]{ONE}[END_TOOL_REQUEST]",
    f"<|python_tag|>{ONE}",
    "<|python_tag|>blinds.call(to=50)",
    f"<|tool_call|>[{ONE}]",
    '<|START_ACTION|>[{"tool_name": "blinds", "parameters": {"to": 50}}]<|END_ACTION|>',
    'START_ACTION [{"tool_name": "blinds", "parameters": {"to": 50}}] END_ACTION',
    f"functools[{ONE}]",
    '>>>blinds\n{"to": 50}',
    "```tool_code\nblinds(to=50)\n```",
    f"```json\n{ONE}\n```",
    f"```\n{ONE}\n```",
    "```python\nblinds(to=50)\n```",
    ONE,
    f"[{ONE}]",
    "{'name': 'blinds', 'arguments': {'to': 50}}",
    '{"arguments": {"to": 50}, "name": "blinds"}',
    '{"name": "blinds", "parameters": {"to": 50}}',
    '{"function": "blinds", "args": {"to": 50}}',
    '{"tool": "blinds", "input": {"to": 50}}',
    '{"action": "blinds", "action_input": {"to": 50}}',
    '{"type": "function", "function": {"name": "blinds", "arguments": "{\\"to\\": 50}"}}',
    '{"tool_calls": [{"name": "blinds"}]}',
    '{"blinds": {"to": 50}}',
    '{"name": "stop_all"}',
    '{"name": "blinds", "arguments": {"to": 5',
    "blinds(to=50)",
    "[blinds(to=50), stop_all()]",
    "blinds(50)",
    "stop_all()",
    "`stop_all()`",
    "functions.blinds(to=50)",
    "<blinds><to>50</to></blinds>",
    "call:blinds{to:50}",
    "@blinds(to=50)",
    "await stop_all()",
    '{"tool_name": "blinds", "tool_arguments": {"to": 50}}',
    "Action: blinds\nAction Input: 50",
    'Action: blinds[{"to": 50}]',
    "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>blinds",
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.blinds:0<|tool_call_argument_begin|>{"to": 50}',
    "<start_function_call>call:blinds{to:50}<end_function_call>",
    '<|channel|>commentary to=functions.blinds <|message|>{"to": 50}',
    '<blinds to="50"/>',
    '<function name="blinds">{"to": 50}</function>',
    "<call>stop_all()</call>",
    "stop_all{}",
    'blinds {"to": 50}',
    'blinds: {"to": 50}',
    "ACTION: stop_all",
    "blinds to=50",
    "stop_all ()",
]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_any_markup_is_no_refusal_no_question_and_no_answer(call: str) -> None:
    words: tuple[tuple[Behaviour, str], ...] = (
        ("refuse", "I can't do that."), ("clarify", "Which room?"), ("answer", "It is noon.")
    )  # fmt: skip
    for behaviour, text in words:
        asked = row(behaviour, Gold(match="noon") if behaviour == "answer" else None)
        assert judge(text, asked).exact is True
        for answer in (f"{text} {call}", f"{text}\n{call}", f"{call}\n{text}", f"{text}\n\n{call}\n\nDone."):
            if behaviour == "clarify" and answer.startswith("Action"):
                continue
            verdict = judge(answer, asked)
            assert (verdict.exact, verdict.made_call, verdict.error) == (False, True, "unwanted_call"), answer
        left_in_the_text = judge_answer(ParsedAnswer((), f"{text}\n{call}"), asked)
        assert (left_in_the_text.exact, left_in_the_text.error) == (False, "unwanted_call")


@pytest.mark.parametrize(
    "text",
    [
        "I can't do that; the tool blinds only moves blinds.",
        "I can't do that: stop_all is switched off.",
        "I can't do that: the function stop_all() does not take a room.",
        "I can't do that with `blinds`.",
        "I can't do that, and planning a plan (my plan) does not help.",
        "I can't use blinds(to) or plan(steps) for that.",
        "I can't do that. My tools: blinds, stop_all, plan.",
        'I can\'t do that. You said: "plan".',
        "I can't write <tool_call> tags.",
        "I can't do that >>> sorry.",
        "I can't plan (for now).",
        "I can't do that. My actions: stop_all and blinds.",
        "I can't: a plan {like yours} is no tool.",
        'I can\'t answer with {"name": "Ann", "age": 3}.',
    ],
)
def test_a_sentence_that_names_a_tool_is_no_call(text: str) -> None:
    verdict = judge(text, row("refuse"))
    assert (verdict.exact, verdict.made_call) == (True, False)


def test_made_up_tools_and_rows_without_tools_count_too() -> None:
    made_up = 'I can\'t do that. {"name": "open_door", "arguments": {}}'
    assert judge(made_up, row("refuse")).exact is False
    assert judge(made_up, row("refuse", tools=False)).exact is False
    assert judge("I can't do that. <function=open_door>{}</function>", row("refuse", tools=False)).exact is False


def test_json_that_is_the_right_answer_is_no_call() -> None:
    person = '{"name": "Ann", "parameters": {"age": 3}}'
    for answer in (person, f"```json\n{person}\n```", '{"name": "plan", "age": 3}', '[{"name": "Ann", "input": 3}]'):
        verdict = judge(answer, row("answer", Gold(match="Ann|plan")))
        assert (verdict.exact, verdict.made_call) == (True, False)
    assert judge(ONE, row("answer", Gold(match="50"))).exact is False
    assert judge(f"```json\n{ONE}\n```", row("answer", completion=f"```json\n{ONE}\n```")).exact is True
    assert judge(f"```json\n{ONE}\n```", row("answer", Gold(equals=(f"```json\n{ONE}\n```",)))).exact is True


def test_a_wanted_call_in_a_markup_that_is_not_read_cannot_be_read() -> None:
    wanted = row("tool_call", Gold(calls=(GoldCall(name="blinds", arguments={"to": [50]}),)))
    for text in (f"Moving: {ONE}", f"```json\n{ONE}\n```", "[blinds(to=50)]", "<|python_tag|>blinds.call(to=50)"):
        verdict = judge(text, wanted)
        assert (verdict.exact, verdict.parses, verdict.made_call, verdict.error) == (False, False, True, "unparsable")
    read = f"I call blinds(to=50).\n<tool_call>{ONE}</tool_call>"
    assert judge(read, wanted).exact is True
