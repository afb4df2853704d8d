"""Thinking: it is never the answer, a call in it is no call, and a tag that is spoken of is no tag."""

from __future__ import annotations

import json

import pytest

from potstill.components.chat.thinking import without_thinking
from potstill.components.chat.tool_calls import parse_answer
from potstill.core.records import Call

CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
DRAFT = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a\n</think>\n\nb", "b"),  # the prompt has opened the tag
        ("a </think> b", "b"),
        ("</think>b", "b"),
        ("<think></think>b", "b"),
        ("Sure. <think>a</think> b", "Sure.  b"),
        ("<think>a <think> b</think> c</think> d", "d"),
        ("x</think>\n<think>y</think>z", "z"),
        ("[THINK]a[/THINK]b", "b"),
        ("<reasoning>a</reasoning>b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ("Write `</think>` at the end.", "Write `</think>` at the end."),
        ("The <think> tag opens it.", "The <think> tag opens it."),
        ('{"text": "</think> is a tag"}', '{"text": "</think> is a tag"}'),
        ("no tags", "no tags"),
    ],
)
def test_what_is_left_is_the_answer(text: str, answer: str) -> None:
    rest, unfinished = without_thinking(text)
    assert (rest.strip(), unfinished) == (answer, False)


@pytest.mark.parametrize(
    "text",
    [
        "<think>a",
        "Sure. <think>a",
        "<think>a</think><think>b",
        "[THINK]a",
        "<|channel|>analysis<|message|>a",
        "<think>",
    ],
)
def test_thinking_that_does_not_end_leaves_no_answer(text: str) -> None:
    assert without_thinking(text) == ("", True)
    answer = parse_answer(text)
    assert answer.parse_error is not None
    assert not answer.content


def test_calls_in_thinking_are_no_calls() -> None:
    for text in (f"<think>{DRAFT}?</think>{CALL}", f"{DRAFT}\n</think>\n{CALL}", f"a <tool_call>\n</think>\n\n{CALL}"):
        answer = parse_answer(text)
        assert ([c.name for c in answer.calls], answer.parse_error) == (["f"], None)
    only_thought = parse_answer(f"{DRAFT}?\n</think>\n\nSorry.")
    assert (only_thought.calls, only_thought.content, only_thought.parse_error) == ((), "Sorry.", None)


def test_a_tag_in_an_argument_is_part_of_the_argument() -> None:
    for said in ("</think> ends it", "<think>", "it ends with </think>"):
        text = f"<tool_call>{json.dumps({'name': 'say', 'arguments': {'text': said}})}</tool_call>"
        assert parse_answer(text).calls == (Call(name="say", arguments={"text": said}),)
