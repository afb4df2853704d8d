"""Each kind of expectation accepts right answers and rejects wrong ones, the planted ones among them."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import TOOLS
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.checkers.numeric import final_number
from potstill.components.suites.checks import check_answer, check_expected
from potstill.components.suites.items import Item
from potstill.core.errors import DataError

CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "hall", "state": "on"}}\n</tool_call>'
GOLD = [{"name": "set_light", "arguments": {"room": ["hall"], "state": ["on"]}}]


def item(expected: dict[str, Any], **more: Any) -> Item:
    return Item.parse({"messages": [{"role": "user", "content": "?"}], "expected": expected, **more}, "test")


def is_right(expected: dict[str, Any], text: str, tools: list[dict[str, Any]] | None = None) -> bool:
    asked = item(expected, tools=tools or [])
    answer = parse_answer(text, "auto", asked.tools, only_known=expected["kind"] not in ("calls", "refusal"))
    return check_answer(asked, answer).right


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ({"kind": "exact", "text": "In Paris."}, ["In Paris.", " In  Paris. "], ["in paris.", "In Paris", ""]),
        ({"kind": "one_of", "texts": ["yes", "Yes, it is"]}, ["YES", "yes, it  is"], ["yes.", "no", ""]),
        ({"kind": "regex", "pattern": r"\bparis\b"}, ["It is Paris."], ["Parisian", "It is not Paris."]),
        (
            {"kind": "schema", "json_schema": {"type": "object", "required": ["a"]}},
            ['{"a": 1}', ' {"a": null} '],
            ['{"b": 1}', "{'a': 1}", 'It is {"a": 1}', '```json\n{"a": 1}\n```', '{"a": 1, "a": 2}', '{"a": NaN}'],
        ),
        (
            {"kind": "schema", "json_schema": {"type": "integer"}, "fenced": True},
            ["3", "```json\n3\n```", "```\n3\n```"],
            ["3.5", "Here:\n```json\n3\n```"],
        ),
        ({"kind": "numeric", "value": "15"}, ["15", "15.0 apples", "#### 15\n", "$15."], ["-1.5", "1.5", "-15", "150"]),
        ({"kind": "numeric", "value": "-1.5"}, ["-1.5", "\u22121.5", "-3/2"], ["15", "1.5", "- it is 1.5"]),
        ({"kind": "numeric", "value": "0.33", "tolerance": "0.01"}, ["1/3", "0.34"], ["0.3401", "0.3"]),
        ({"kind": "contains_all", "texts": ["red", "blue"]}, ["Blue and RED"], ["red", ""]),
        ({"kind": "contains_all", "texts": ["red"], "absent": ["green"]}, ["red"], ["red or green"]),
        (
            {"kind": "constraints", "rules": [{"name": "punctuation:no_comma"}, {"name": "startend:quotation"}]},
            ['"No comma"'],
            ["No comma", '"One, two"', ""],
        ),
        ({"kind": "refusal"}, ["Sorry, I cannot do that."], ["Done.", "Which room?", ""]),
        ({"kind": "clarification"}, ["Which room do you mean?"], ["Done.", "Sorry, I cannot do that."]),
        ({"kind": "clarification", "match": "room"}, ["Which room?"], ["Which level?"]),
    ],
)
def test_words(expected: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if not is_right(expected, text)] == []
    assert [text for text in wrong if is_right(expected, text)] == []


def test_calls() -> None:
    expected = {"kind": "calls", "calls": GOLD}
    assert is_right(expected, CALL, TOOLS)
    for wrong in (CALL.replace("hall", "attic"), CALL * 2, CALL.replace('"on"', '"on", "x": 1'), "On it.", CALL[:-20]):
        assert not is_right(expected, wrong, TOOLS)


def test_no_call_is_an_answer_in_words_that_can_be_read() -> None:
    expected = {"kind": "calls", "calls": []}
    assert is_right(expected, "I have no tool for that.", TOOLS)
    # a call that cannot be read is an attempt that failed, and never "no call"
    for wrong in (CALL, CALL[:-20], "", '```json\n{"name": "set_light", "arguments": {}}\n```'):
        assert not is_right(expected, wrong, TOOLS)


def test_a_call_is_wrong_where_words_are_expected() -> None:
    for expected in ({"kind": "numeric", "value": "1"}, {"kind": "contains_all", "texts": ["hall"]}):
        assert not is_right(expected, f"hall 1 {CALL}", TOOLS)


def test_thinking_does_not_count() -> None:
    assert is_right({"kind": "numeric", "value": "4"}, "<think>3? No, 4.</think>4")
    assert not is_right({"kind": "numeric", "value": "4"}, "<think>It is 4")


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_numbers_are_read_as_they_are_written(digits: int, places: int) -> None:
    value = Decimal(digits).scaleb(-places)
    for text in (f"{value:f}", f"{value:,f}", f"The answer is {value:f}.", f"first 7, then {value:f} km"):
        assert final_number(text) == Fraction(value), text


@given(st.integers(1, 99), st.integers(1, 99))
def test_a_number_is_never_taken_for_its_digits(whole: int, part: int) -> None:
    """A checker that strips signs and points would accept 15 for -1.5."""
    assert final_number(f"-{whole}.{part}") == -Fraction(f"{whole}.{part}")
    assert final_number(f"-{whole}.{part}") != int(f"{whole}{part}")


@pytest.mark.parametrize("text", ["", "none", "1.2.3", "1,23", "v2", "5 / 0", "10:30:", "9" * 40])
def test_what_is_no_number(text: str) -> None:
    found = final_number(text)
    assert found is None or text == "10:30:"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 18\nNot 20", 18),
        ("so \\boxed{\\frac{3}{4}} of it, 7 times", Fraction(3, 4)),
        ("20 - 5 = 15", 15),
        ("between 3-5", 5),
        ("$-5", -5),
        ("-$5.50", Fraction("-5.5")),
        ("1,234,567", 1234567),
        ("2e3", 2000),
        ("7th", 7),
    ],
)
def test_the_final_number(text: str, value: Fraction) -> None:
    assert final_number(text) == value


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"kind": "regex", "pattern": "("}, "not a valid regular expression"),
        ({"kind": "schema", "json_schema": {"type": "nothing"}}, "not a valid JSON Schema"),
        ({"kind": "schema", "json_schema": {"$ref": "http://x.example/s"}}, "not a valid JSON Schema"),
        ({"kind": "calls", "calls": [{"name": "fly", "arguments": {}}]}, "names tool 'fly'"),
        ({"kind": "calls", "calls": [{"name": "set_light", "arguments": {"room": [1]}}]}, "do not fit the schema"),
    ],
)
def test_what_can_never_be_answered_is_named(expected: dict[str, Any], message: str) -> None:
    asked = item(expected, tools=TOOLS)
    with pytest.raises(DataError, match=message) as caught:
        check_expected([asked])
    assert asked.item_id in str(caught.value)


@pytest.mark.parametrize(
    "expected",
    [
        {"kind": "magic"},
        {"kind": "numeric", "value": "many"},
        {"kind": "numeric", "value": "1/0"},
        {"kind": "one_of", "texts": []},
        {"kind": "exact", "text": ""},
        {"kind": "exact", "text": "a", "extra": 1},
        {"kind": "constraints", "rules": [{"name": "be:nice"}]},
        {"kind": "constraints", "rules": [{"name": "keywords:existence"}]},
        {"kind": "constraints", "rules": [{"name": "punctuation:no_comma", "values": {"x": 1}}]},
        {},
    ],
)
def test_an_expectation_that_says_nothing_is_refused(expected: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^test: not an item of a suite \(expected"):
        item(expected)


def test_a_line_reads_as_the_item_that_was_written() -> None:
    asked = item({"kind": "calls", "calls": GOLD}, tools=TOOLS, tags=["b", "a"], core=True, group="g", weight=2)
    again = Item.parse(json.loads(json.dumps(asked.to_line())), "line")
    assert again.model_dump() == asked.model_dump()
    assert (again.item_id, again.sha256) == (asked.item_id, asked.sha256)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"kind": "regex", "pattern": "("}, "expected.pattern is not a valid regular expression"),
        ({"kind": "regex", "pattern": "a{99999999}"}, "expected.pattern has 99,999,999 elements"),
        ({"kind": "refusal", "match": "("}, "expected.match is not a valid regular expression"),
        ({"kind": "calls", "calls": [{"name": "f"}]}, "expected.calls[0] names tool 'f', which the item does not have"),
    ],
)
def test_errors_name_the_keys_of_the_item_with_its_file_and_line(expected: dict[str, Any], says: str) -> None:
    wrong = Item.parse({"messages": [{"role": "user", "content": "Hi"}], "expected": expected}, "items.jsonl:7")
    with pytest.raises(DataError) as caught:
        check_expected([wrong])
    message = str(caught.value)
    assert message.startswith(f"items.jsonl:7: item {wrong.item_id} (Hi): {says}")
    assert "gold" not in message and "data.tools" not in message
