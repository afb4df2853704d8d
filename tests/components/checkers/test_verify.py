"""Checkers of a teacher's answers: what is certain passes or fails, and all else is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.checkers.verdicts import Candidate, Finding, Verdict
from potstill.components.checkers.verify import verify_answers
from potstill.core.recipe.generate import AnswerChecker
from potstill.core.records import Row

PROPERTIES = {
    "room": {"type": "string"},
    "state": {"enum": ["on", "off"]},
    "level": {"type": "integer"},
    "time": {"type": "string"},
    "tags": {"type": "array", "items": {"type": "string"}},
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "set",
        "description": "",
        "parameters": {"type": "object", "properties": PROPERTIES, "additionalProperties": False},
    },
}
RIGHT = {"calls": [{"name": "set", "arguments": {"room": ["attic"]}}]}


def call(**arguments: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": "set", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


def says(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


def row(answer: dict[str, Any], prompt: str = "light in the attic", **more: Any) -> Row:
    value = {"messages": [{"role": "user", "content": prompt}], "tools": [TOOL], "completion": answer} | more
    return Row.model_validate(value)


def findings(checker: AnswerChecker, *rows: Row) -> list[Finding]:
    return [each[checker] for each in verify_answers([Candidate.of(row) for row in rows], [checker])]


def verdict(checker: AnswerChecker, *rows: Row) -> Verdict:
    return findings(checker, *rows)[0].verdict


OTHER_TOOL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "x", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("answer", "expected", "evidence"),
    [
        (call(room="attic"), "pass", None),
        (call(level="five"), "fail", "the answer calls tool 'set' with arguments that do not fit its schema"),
        (call(nonsense=1), "fail", "the answer calls tool 'set' with arguments that do not fit its schema"),
        (OTHER_TOOL, "fail", "the answer calls tool 'x', which the row does not have; its tools are set"),
        (says('<tool_call>\n{"name": "set", "arguments": {"ro'), "fail", "a call cannot be read: not valid JSON"),
        (says("Which room?"), "unknown", None),
    ],
)
def test_calls_must_be_readable_and_runnable(answer: dict[str, Any], expected: str, evidence: str | None) -> None:
    (found,) = findings("calls", row(answer))
    assert found.verdict == expected
    assert (found.evidence or "").startswith(evidence or "")
    assert verdict("calls", row(answer, tools=[])) == "unknown"


@pytest.mark.parametrize(
    ("answer", "more", "expected"),
    [
        (call(room="attic"), {"behaviour": "tool_call", "gold": RIGHT}, "pass"),
        (call(room="hall"), {"behaviour": "tool_call", "gold": RIGHT}, "fail"),
        (says("Sorry, I cannot do that."), {"behaviour": "tool_call", "gold": RIGHT}, "fail"),
        (call(room="attic"), {"behaviour": "tool_call"}, "unknown"),
        (call(room="attic"), {}, "unknown"),
        (call(room="attic"), {"behaviour": "clarify"}, "fail"),
        (says("Which room?"), {"behaviour": "clarify"}, "pass"),
        (says("Zimmer fehlt."), {"behaviour": "clarify"}, "unknown"),
        (says("Zimmer fehlt."), {"behaviour": "clarify", "gold": {"match": "which room"}}, "fail"),
        (says("Which room?"), {"behaviour": "clarify", "gold": {"match": "which room"}}, "pass"),
        (call(room="attic"), {"behaviour": "refuse"}, "fail"),
        (says("Ne eblas."), {"behaviour": "refuse"}, "unknown"),
        (says("Lima"), {"gold": {"equals": ["lima"]}}, "pass"),
        (says("Oslo"), {"gold": {"equals": ["lima"]}}, "fail"),
        (says("Once"), {"gold": {"continuation": True}}, "unknown"),
    ],
)
def test_gold_and_behaviour_decide_only_what_they_say(
    answer: dict[str, Any], more: dict[str, Any], expected: str
) -> None:
    assert verdict("gold", row(answer, **more)) == expected


def test_a_rows_own_answer_is_not_its_gold() -> None:
    """Where the answer is the row's completion, it would always be right by itself."""
    assert verdict("gold", row(says("Lima"))) == "unknown"


def test_a_pattern_that_never_ends_is_unknown_and_ends() -> None:
    slow = row(says("a" * 60 + "!"), behaviour="refuse", gold={"match": "(a+)+$"})
    (found,) = findings("gold", slow)
    assert found.verdict in ("unknown", "fail")


@pytest.mark.parametrize("checker", ["calls", "gold", "values", "agreement"])
def test_nothing_is_said_of_an_answer_that_is_known_to_be_cut_off(checker: AnswerChecker) -> None:
    cut = row(call(room="hall"), behaviour="tool_call", gold=RIGHT, provenance={"finish_reason": "length"})
    assert verdict(checker, cut) == "unknown"


# ---- values ----


def many(**arguments: Any) -> list[Row]:
    """Rows whose values stand in their prompts, as most do."""
    said = " ".join(str(value) for value in arguments.values())
    return [row(call(**arguments), prompt=f"please {said} number {i}") for i in range(40)]


@pytest.mark.parametrize(
    ("arguments", "prompt", "expected"),
    [
        ({"room": "attic"}, "Light in the ATTIC!", "pass"),
        ({"room": "the  Blue-Room"}, "lights of the blue room", "pass"),
        ({"room": "art"}, "party lights", "fail"),
        ({"room": "京都"}, "京都の天気", "pass"),
        ({"room": "cellar"}, "light in the attic", "fail"),
        ({"room": "attic", "state": "off"}, "no light in the attic", "pass"),
        ({"level": 75}, "level 75 please", "pass"),
        ({"level": 75}, "level seventy five please", "pass"),
        ({"level": 75}, "level seventy-five please", "pass"),
        ({"level": 12}, "twelve", "pass"),
        ({"level": 12}, "a dozen", "pass"),
        ({"level": 100}, "to a hundred", "pass"),
        ({"level": 12500}, "level 12,500 please", "pass"),
        ({"level": -5}, "minus five degrees", "pass"),
        ({"level": 1.5}, "level 1.50", "pass"),
        ({"level": 70}, "level 75 please", "fail"),
        ({"level": 20}, "not so loud", "fail"),
        ({"room": "attic"}, "", "fail"),
        ({"state": "on"}, "light", "unknown"),
    ],
)
def test_values_of_copied_arguments_must_stand_in_the_prompt(
    arguments: dict[str, Any], prompt: str, expected: str
) -> None:
    assert verdict("values", row(call(**arguments), prompt=prompt), *many(room="attic"), *many(level=5)) == expected


def test_values_may_stand_in_any_message_of_the_prompt() -> None:
    turns = [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": None, "tool_calls": call(room="hall")["tool_calls"]},
        {"role": "tool", "content": "room: cellar"},
    ]
    for room, expected in (("hall", "pass"), ("cellar", "pass"), ("attic", "fail")):
        assert verdict("values", row(call(room=room), messages=turns), *many(room="attic")) == expected


def test_an_argument_that_is_composed_is_unknown() -> None:
    """Nothing is concluded from few values, nor where more than one in ten is not in its prompt."""
    wrong = row(call(room="cellar"))
    assert verdict("values", wrong, *many(room="attic")[:18]) == "unknown"
    assert verdict("values", wrong, *many(room="attic")[:19]) == "fail"
    composed = [row(call(room=f"a room {i}")) for i in range(4)]
    assert verdict("values", wrong, *many(room="attic"), *composed) == "unknown"


def test_a_number_that_is_computed_needs_some_number_in_the_prompt() -> None:
    computed = [row(call(time="19:45"), prompt="quarter to eight in the evening") for _ in range(40)]
    assert verdict("values", row(call(time="07:30"), prompt="half past seven"), *computed) == "unknown"
    assert verdict("values", row(call(time="12:00"), prompt="wake me at noon"), *computed) == "unknown"
    assert verdict("values", row(call(time="07:30"), prompt="wake me"), *computed) == "fail"
    assert verdict("values", row(call(time="07:30"), prompt="wake me at 07:30"), *computed) == "pass"


def test_items_of_lists_are_values_of_their_own() -> None:
    usual = [row(call(tags=["red", "blue"]), prompt="red and blue") for _ in range(10)]
    assert verdict("values", row(call(tags=["red", "green"]), prompt="red and blue"), *usual) == "fail"


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_a_value_that_was_said_never_fails(before: str, value: str, after: str) -> None:
    said = row(call(room=value), prompt=f"{before} {value} {after}")
    assert verdict("values", said, *many(room="attic")) in ("pass", "unknown")


# ---- agreement ----


def test_the_majority_of_answers_to_a_prompt_passes_and_all_others_fail() -> None:
    said = [call(room="attic"), call(room="Attic "), call(room="hall"), says("Which room?"), call(room="attic")]
    assert [f.verdict for f in findings("agreement", *map(row, said))] == ["pass", "pass", "fail", "fail", "pass"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([call(room="attic")], ["unknown"]),
        ([call(room="attic"), call(room="hall")], ["unknown", "unknown"]),
        ([call(room="a"), call(room="a"), call(room="b"), call(room="b")], ["unknown"] * 4),
        ([says("Which room?"), says("In which room?"), call(room="a")], ["unknown", "unknown", "fail"]),
        ([says("Which room?"), says("which  room?"), call(room="a")], ["pass", "pass", "fail"]),
    ],
)
def test_without_a_majority_nothing_is_said(said: list[dict[str, Any]], expected: list[str]) -> None:
    assert [f.verdict for f in findings("agreement", *map(row, said))] == expected


def test_answers_to_other_prompts_do_not_count() -> None:
    elsewhere = [row(call(room="hall"), prompt="light in the hall")] * 3
    assert verdict("agreement", row(call(room="attic")), *elsewhere) == "unknown"


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=7), st.randoms())
def test_agreement_does_not_depend_on_the_order(rooms: list[str], random: Any) -> None:
    def verdicts(order: list[str]) -> dict[str, str]:
        found = findings("agreement", *(row(call(room=room)) for room in order))
        return {room: each.verdict for room, each in zip(order, found, strict=True)}

    assert verdicts(rooms) == verdicts(random.sample(rooms, len(rooms)))
