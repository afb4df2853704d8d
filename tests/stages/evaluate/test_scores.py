"""From answers to numbers: why an answer is wrong, by tool and by kind, and rates that count the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import finished_run
from potstill.components.runtimes import Answer, OnAnswers, Sampling
from potstill.core.records import Gold, GoldCall, Message, Row
from potstill.stages.evaluate.answers import TestBench
from potstill.stages.evaluate.scores import model_metrics

TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "required": ["to"]}}}
    for name in ("dim", "heat")
)
DIM = GoldCall(name="dim", arguments={"to": [1]})
HEAT = GoldCall(name="heat", arguments={"to": [2]})


class Scripted:
    """A runtime that gives the next answer of a list."""

    def __init__(self, said: list[tuple[str, str]]) -> None:
        self.said = said

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        return [Answer(text, finish, 1, 1, 0.1) for text, finish in self.said]


def call(name: str, to: int | str) -> str:
    value = to if isinstance(to, int) else f'"{to}"'
    return f'<tool_call>{{"name": "{name}", "arguments": {{"to": {value}}}}}</tool_call>'


def row(number: int, **more: Any) -> Row:
    return Row(messages=(Message(role="user", content=f"do {number}"),), tools=TOOLS, **more)


def test_errors_and_tools_of_a_model(tmp_path: Path) -> None:
    one: dict[str, Any] = {"behaviour": "tool_call", "gold": Gold(calls=(DIM,))}
    both: dict[str, Any] = {"behaviour": "multi_call", "gold": Gold(calls=(DIM, HEAT))}
    script: list[tuple[dict[str, Any], str, str, str | None]] = [
        (one, call("dim", 1), "stop", None),
        (one, call("dim", 7), "stop", "wrong_value"),
        (one, call("dim", 1), "length", "cut_off"),
        (one, call("dim", 1), "unfinished", "unfinished"),
        (one, "", "refused", "refused"),
        (one, "Which one?", "stop", "no_call"),
        (both, call("heat", 2) + call("dim", 1), "stop", None),
        (both, call("heat", 2), "stop", "wrong_number"),
        ({"behaviour": "refuse"}, "I cannot do that.", "stop", None),
        ({"behaviour": "refuse"}, "I cannot do that. dim(to=1)", "stop", "unwanted_call"),
        ({"behaviour": "refuse"}, "Done.", "stop", "wrong_words"),
        ({"behaviour": "answer"}, "Anything.", "length", None),
    ]
    rows = [row(number, **more) for number, (more, *_) in enumerate(script)]
    bench = TestBench(rows, Sampling(9), "auto", tmp_path)
    answers = bench.answers("student", Scripted([(text, finish) for _, text, finish, _ in script]))
    assert [answer.error for answer in answers] == [error for *_, error in script]
    assert answers == bench.answers("student", Scripted([]))  # read again
    found = model_metrics(answers, confidence=0.9)
    assert found.errors == {
        "wrong_value": 1, "cut_off": 1, "unfinished": 1, "refused": 1, "no_call": 1, "wrong_number": 1,
        "unwanted_call": 1, "wrong_words": 1,
    }  # fmt: skip
    assert {tool: (rate.k, rate.n) for tool, rate in found.tools.items()} == {"dim": (2, 8), "heat": (1, 2)}
    assert found.exact and (found.exact.k, found.exact.n) == (3, 11)
    assert sum(found.errors.values()) == found.exact.n - found.exact.k
    # of answers that call: six that can be read, and one in a markup that is not read
    assert found.schema_valid and (found.schema_valid.k, found.schema_valid.n) == (6, 7)


def test_schema_validity_is_of_calls_and_unknown_without_any(tmp_path: Path) -> None:
    rows = [row(number, behaviour="refuse") for number in range(2)]
    answers = TestBench(rows, Sampling(9), "auto", tmp_path).answers("gguf", Scripted([("I can't.", "stop")] * 2))
    found = model_metrics(answers, confidence=0.9)
    assert found.schema_valid is None
    assert (found.errors, found.tools) == ({}, {})


def test_test_rows_that_the_teacher_did_not_answer_whole_are_said() -> None:
    metrics = finished_run.metrics()
    assert metrics.findings() == []
    teacher = metrics.models.teacher.model_copy(update={"errors": {"cut_off": 2, "refused": 1, "wrong_words": 5}})
    models = metrics.models.model_copy(update={"teacher": teacher})
    assert metrics.model_copy(update={"models": models}).findings() == [
        "evaluate: 3 of the teacher's answers to test rows are not whole (cut off: 2, refused by the endpoint: 1). "
        "They count as wrong."
    ]
