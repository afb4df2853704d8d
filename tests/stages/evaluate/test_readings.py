"""What counts of an answer that came through a chat endpoint is what the endpoint's users get of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures import TOOLS
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.runtimes import Answer, OnAnswers, Sampling
from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.records import Call, Gold, GoldCall, Message, Row
from potstill.stages.evaluate.answers import TestBench
from potstill.stages.evaluate.scores import readings_of

ON = Call(name="set_light", arguments={"room": "hall", "state": "on"})
OFF = Call(name="set_light", arguments={"room": "attic", "state": "off"})
MARKUP = '<tool_call>\n{"name": "set_light", "arguments": {"room": "hall", "state": "on"}}\n</tool_call>'
THOUGHT = "<think>\nI cannot\n</think>\n\nYes."
BARE = '{"name": "set_light", "arguments": {"room": "hall", "state": "on"}}'


def asked(*calls: Call) -> Row:
    """A row that asks for calls, or for an answer in words."""
    gold = tuple(GoldCall(name=c.name, arguments={k: [v] for k, v in c.arguments.items()}) for c in calls)
    kinds = ("refuse", "tool_call", "multi_call")
    return Row(
        messages=(Message(role="user", content="hall on"),), tools=tuple(TOOLS), behaviour=kinds[len(calls)],
        gold=Gold(calls=gold) if calls else Gold(match="cannot"),
    )  # fmt: skip


class Said:
    """A runtime that gives one answer to every row."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        return [self._answer for _ in rows]


def judged(folder: Path, row: Row, text: str, parsed: ParsedAnswer | None, finish: str = "stop") -> JudgedAnswer:
    bench = TestBench([row], Sampling(8), "hermes", folder)
    return bench.answers("gguf", Said(Answer(text, finish, 9, 4, 0.1, parsed=parsed)))[0]


@pytest.mark.parametrize(
    ("row", "text", "parsed", "right", "differs"),
    [
        (asked(ON), MARKUP, ParsedAnswer((ON,), ""), True, False),
        # the endpoint reads what potstill does not
        (asked(ON, OFF), "[odd markup]", ParsedAnswer((ON, OFF), ""), True, True),
        # a call that a user does not get does not count, however well potstill could read it
        (asked(ON), MARKUP, ParsedAnswer((), MARKUP), False, True),
        (asked(ON), BARE, ParsedAnswer((), BARE), False, None),
        (asked(ON), MARKUP, ParsedAnswer((), "", "the model produced output ..."), False, True),
        # markup that is left in the words spoils an answer in words
        (asked(), "I cannot.", ParsedAnswer((), "I cannot."), True, False),
        (asked(), "I cannot. " + MARKUP, ParsedAnswer((), "I cannot. " + MARKUP), False, True),
        (asked(), "I cannot. " + MARKUP, ParsedAnswer((ON,), "I cannot. "), False, False),
        # thinking that the endpoint leaves in the words, or takes out of them, is no part of the answer
        (asked(), "<think>\nYes\n</think>\n\nI cannot.", ParsedAnswer((), "I cannot."), True, False),
        (asked(), THOUGHT, ParsedAnswer((), THOUGHT), False, False),
        # without an endpoint's reading, potstill's counts
        (asked(ON), MARKUP, None, True, False),
    ],
)  # fmt: skip
def test_the_endpoints_reading_is_judged(
    tmp_path: Path, row: Row, text: str, parsed: ParsedAnswer | None, right: bool, differs: bool | None
) -> None:
    answer = judged(tmp_path, row, text, parsed)
    assert answer.exact == right
    assert answer.text == text
    if differs is not None:
        assert (answer.served is not None) == differs


def test_an_answer_that_was_cut_off_is_wrong_whatever_the_endpoint_reads(tmp_path: Path) -> None:
    assert judged(tmp_path, asked(ON), MARKUP, ParsedAnswer((ON,), ""), finish="length").exact is False


def test_different_readings_are_counted_and_one_is_shown(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    same = judged(tmp_path / "a", asked(ON), MARKUP, ParsedAnswer((ON,), ""))
    other = judged(tmp_path / "b", asked(ON), MARKUP, ParsedAnswer((OFF,), "Done."))
    found = readings_of([same, other, same, other])
    assert (found.answers, found.different) == (4, 2)
    assert found.example and found.example.text == MARKUP
    assert found.example.served == 'set_light({"room": "attic", "state": "off"})\nDone.'
    assert "In 2 of 4 answers" in found.sentence
    assert found.with_example.startswith(found.sentence) and "\n" not in found.with_example
    assert readings_of([same]).sentence == ""
