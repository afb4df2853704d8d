"""Golds: anchors, whole answers, denied and garbled matches, Unicode, normalisers, and why an answer is wrong."""

from __future__ import annotations

import json
import time
import unicodedata
from typing import Any

import pytest
from pydantic import ValidationError

from potstill.components.checkers.calls import calls_match
from potstill.components.checkers.garble import is_garbled
from potstill.components.checkers.golds import check_golds
from potstill.components.checkers.judge import judge
from potstill.components.checkers.normalise import NORMALISERS
from potstill.components.checkers.pattern import compile_match
from potstill.core.errors import DataError
from potstill.core.records import Behaviour, Call, Gold, GoldCall, Message, Row


def row(gold: Gold, behaviour: Behaviour = "answer") -> Row:
    return Row(messages=(Message(role="user", content="capital of France?"),), behaviour=behaviour, gold=gold)


# ---- words ----


@pytest.mark.parametrize(
    ("match", "answer", "right"),
    [
        ("paris", "It is Paris.", True),
        ("^paris[.!]?$", "Paris.", True),
        ("^paris[.!]?$", "\n Paris. \n", True),
        ("^paris[.!]?$", "It is Paris.", False),
        ("^paris[.!]?$", "Paris.\nOr Lyon.", False),
        ("paris", "It is not Paris.", False),
        ("paris", "It isn't Paris.", False),
        ("paris", "It's not in Paris", False),
        ("paris", "I don't think it is Paris.", False),
        ("paris", "Anything but Paris.", False),
        ("paris", "No, Paris.", True),
        ("paris", "Paris, definitely not London.", True),
        ("paris", "paris paris paris paris", False),
        ("paris", "Paris is wrong.", False),
        ("paris", "Paris isn't the capital.", False),
        ("paris", "Paris? No.", False),
        ("paris", "The capital isn't really Paris.", False),
        ("paris", "It is definitely not the city of Paris.", False),
        ("paris", "I do not know whether it is Paris.", False),
        ("paris", "Paris is the wrong answer.", False),
        ("paris", "It could not be Paris.", False),
        ("paris", "It is Lyon rather than Paris.", False),
        ("paris", "It is Lyon instead of Paris.", False),
        ("paris", "It is not only Paris.", True),
        ("paris", "It is Paris rather than Lyon.", True),
        ("paris", "Lyon? No, Paris.", True),
        ("paris", "Paris? No doubt.", True),
        ("paris", "It is not Lyon but Paris.", True),
        ("paris", "I'm not sure, but it's Paris.", True),
        ("paris", "Lyon is not. Paris is.", True),
        ("paris", "Not only Paris: not Lyon. It is Paris.", True),
        (r"is not lyon", "It is not Lyon.", True),
        ("can't", "I can\u2019t say.", True),
        ("I can\u2019t", "I can't say.", True),
        ("paris", "Paris Paris Paris Paris Paris Paris", False),
        ("paris", "The capital is the capital is the capital is Paris is the capital is the capital is the", False),
        ("paris", "It is Paris \ufffd\ufffd", False),
        ("paris", "It is Paris\x00\x07", False),
        ("paris", "parisparisparisparisparisparisparis", False),
        ("paris", "Paris!!!!! aaaaaaaaaaaaaaaaa", False),
        (r"^(ha ?)+$", "ha ha ha ha ha ha", True),  # the pattern accepts the whole answer
    ],
)
def test_match_of_an_answer_in_words(match: str, answer: str, right: bool) -> None:
    assert judge(answer, row(Gold(match=match))).exact is right


@pytest.mark.parametrize(
    "text",
    [
        "It is 1, 1, 1, 1, 1 and 1.", "0.1111111111111111", "| a | b |\n|---|---|\n|---|---|", "=" * 80,
        "No, no, no, no!", "10101010101010101", "Straße in Zürich, 東京とNY", "Der Bahnhof: Москва (Moscow)",
        "x\u200dy \U0001f468\u200d\U0001f469\u200d\U0001f467", "The more I see, the more I know, the more I ask.",
        "hmm, aaah, wow!!!", "line\r\nline\tline",
    ],
)  # fmt: skip
def test_plain_text_is_not_garbled(text: str) -> None:
    assert not is_garbled(text)


def test_garbled_words_neither_decline_nor_ask() -> None:
    assert judge("I can't I can't I can't I can't I can't", row(Gold(), "refuse")).exact is False
    assert judge("Which room which room which room which room which room?", row(Gold(), "clarify")).exact is False
    assert judge("Which room\ufffd?", row(Gold(), "clarify")).exact is False


def test_equals_accepts_whole_answers_only() -> None:
    asked = row(Gold(equals=("4", "four", "Cafe\u0301 Noir")))
    for right in ("4", " FOUR\n", "caf\u00e9  noir"):
        assert judge(right, asked).exact is True
    for wrong in ("It is 4", "44", "", "four."):
        assert judge(wrong, asked).exact is False
    assert judge("It is 4", row(Gold(equals=("four",), match=r"\b4\b"))).exact is True


def test_unicode_is_compared_composed_on_both_sides() -> None:
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    for one, other in ((composed, decomposed), (decomposed, composed)):
        assert judge(f"A {one}.", row(Gold(match=rf"\b{other}\b"))).exact is True
        assert judge(one, Row(messages=row(Gold()).messages, completion=Message(role="assistant", content=other))).exact
        gold = GoldCall(name="go", arguments={other: [other, [other], {other: 1}]})
        for value in (one, [one], {one: 1}):
            assert calls_match([Call(name="go", arguments={one: value})], [gold])


def test_a_pattern_that_tries_every_split_is_stopped() -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"gold\.match takes more than 1 second on an answer of 41 characters"):
        judge("a" * 40 + "!", row(Gold(match="(a|aa)+$")))
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("behaviour", "gold", "key"),
    [
        ("refuse", Gold(equals=("No.",)), "equals"),
        ("clarify", Gold(equals=("Which?",), match="which"), "equals"),
        ("tool_call", Gold(calls=(GoldCall(name="stop"),), equals=("x",)), "equals"),
        ("multi_call", Gold(calls=(GoldCall(name="stop"),), match="x"), "match"),
        ("answer", Gold(calls=(GoldCall(name="stop"),), match="x"), "calls"),
        ("refuse", Gold(calls=(GoldCall(name="stop"),)), "calls"),
    ],
)
def test_a_part_of_a_gold_that_the_behaviour_does_not_use_is_refused(behaviour: Any, gold: Gold, key: str) -> None:
    asked = row(gold, behaviour).model_copy(
        update={"where": "t.jsonl:3", "tools": ({"type": "function", "function": {"name": "stop"}},)}
    )
    with pytest.raises(DataError, match=rf"t\.jsonl:3: .* {behaviour}, which does not use gold\.{key}\."):
        check_golds([asked])


# ---- normalisers ----


@pytest.mark.parametrize(
    ("name", "given", "accepted", "never"),
    [
        ("case", "KITCHEN", "kitchen", "kitchens"),
        ("case", "STRASSE", "straße", "strase"),
        ("spaces", " living \n room", "living room", "livingroom"),
        ("punctuation", "Mr. Smith's", "Mr Smith s", "Mr Smiths"),
        ("punctuation", "-1.5", "-1.5", "15"),
        ("punctuation", "-1.5", "-1.5", "1.5"),
        ("punctuation", "07:30", "07:30", "730"),
        ("articles", "the kitchen", "kitchen", "theatre"),
        ("articles", "a theatre", "theatre", "atheatre"),
        ("number", "40", 40, 41),
        ("number", 40, "40", "forty"),
        ("number", " -1.5 ", -1.5, 15),
        ("number", 0.30000000000000004, 0.3, 0.300001),
        ("order", ["b", "a"], ["a", "b"], ["a", "a"]),
        ("order", [2, 1.0], [1, 2], [1, 2, 2]),
        ("case", ["A", "B"], ["a", "b"], ["b", "a"]),
    ],
)
def test_a_normaliser_is_asked_for_by_name_and_removes_one_difference(
    name: Any, given: Any, accepted: Any, never: Any
) -> None:
    def fits(value: Any, right: Any, *names: Any) -> bool:
        gold = GoldCall(name="f", arguments={"x": [right], "y": [1]}, normalise={"x": names} if names else {})
        return calls_match([Call(name="f", arguments={"x": value, "y": 1})], [gold])

    assert fits(given, accepted, name)
    assert fits(given, accepted, *NORMALISERS)
    assert not fits(given, never, name)
    if given != accepted:
        assert not fits(given, accepted)


def test_normalisers_leave_other_types_and_other_arguments_alone() -> None:
    gold = GoldCall(name="f", arguments={"x": [True, None], "y": ["a"]}, normalise={"x": tuple(NORMALISERS)})
    assert calls_match([Call(name="f", arguments={"x": True, "y": "a"})], [gold])
    assert calls_match([Call(name="f", arguments={"x": None, "y": "a"})], [gold])
    assert not calls_match([Call(name="f", arguments={"x": 1, "y": "a"})], [gold])
    assert not calls_match([Call(name="f", arguments={"x": True, "y": "A"})], [gold])


def test_a_normaliser_that_is_not_known_or_has_no_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="'case', 'spaces', 'punctuation', 'articles', 'number' or 'order'"):
        GoldCall.model_validate({"name": "f", "arguments": {"x": ["a"]}, "normalise": {"x": ["lower"]}})
    with pytest.raises(ValidationError, match="normalise has 'y', which is not an argument"):
        GoldCall(name="f", arguments={"x": ["a"]}, normalise={"y": ("case",)})


# ---- why it is wrong ----

DIM = GoldCall(name="dim", arguments={"room": ["hall"], "to": [40], "slowly": [True]}, optional=("slowly",))


def said(*calls: tuple[str, dict[str, Any]]) -> str:
    return "".join(f"<tool_call>{json.dumps({'name': n, 'arguments': a})}</tool_call>" for n, a in calls)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (said(("dim", {"room": "hall", "to": 40})), None),
        (said(("dim", {"room": "hall", "to": 41})), "wrong_value"),
        (said(("dim", {"room": "hall", "to": "40"})), "wrong_value"),
        (said(("dim", {"room": "hall"})), "missing_argument"),
        (said(("dim", {"room": "hall", "level": 40})), "missing_argument"),
        (said(("dim", {"room": "hall", "to": 40, "colour": "red"})), "extra_argument"),
        (said(("glow", {"room": "hall", "to": 40})), "wrong_tool"),
        (said(("dim", {"room": "hall", "to": 40}), ("dim", {"room": "hall", "to": 40})), "wrong_number"),
        ("Which room?", "no_call"),
        ("<tool_call>{", "unparsable"),
        ("<think>hm", "unparsable"),
    ],
)
def test_a_wrong_call_has_one_error(text: str, error: str | None) -> None:
    assert judge(text, row(Gold(calls=(DIM,)), "tool_call")).error == error


def test_calls_that_fit_the_same_gold_leave_another_with_a_wrong_value() -> None:
    golds = (GoldCall(name="dim", arguments={"to": [1]}), GoldCall(name="dim", arguments={"to": [2]}))
    both = row(Gold(calls=golds), "multi_call")
    assert judge(said(("dim", {"to": 2}), ("dim", {"to": 1})), both).error is None
    assert judge(said(("dim", {"to": 1}), ("dim", {"to": 1})), both).error == "wrong_value"
    assert judge(said(("dim", {"to": 1}), ("dim", {})), both).error == "missing_argument"
    assert judge(said(("dim", {"to": 1})), both).error == "wrong_number"


@pytest.mark.parametrize("pattern", ["a{99999999}", "a{0,99999999}", "(x(a{1000}b){1000}){1000}", "a{1 000 000}(?x)"])
def test_a_pattern_that_repeats_too_much_is_refused_before_it_is_compiled(pattern: str) -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: gold\.match has [\d,]+ elements"):
        compile_match(pattern, "rows.jsonl:3")


@pytest.mark.parametrize("pattern", [r"a\{99999999}", "[{99999999}]", r"(\d{1,18}, ){50}", "(a{300}){300}", "a{,}"])
def test_other_patterns_are_not_taken_for_repetitions(pattern: str) -> None:
    assert compile_match(pattern, "rows.jsonl:3").pattern == pattern


def test_wrong_words_and_unwanted_calls_are_told_apart() -> None:
    assert judge("Lyon.", row(Gold(match="paris"))).error == "wrong_words"
    assert judge("Paris. " + said(("dim", {})), row(Gold(match="paris"))).error == "unwanted_call"
    assert judge("<think>Paris", row(Gold(match="paris"))).error == "unparsable"
    assert judge("Anything.", row(Gold())).error is None  # not judged
