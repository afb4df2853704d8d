"""Matching calls to the gold, schemas, and the verdict on one answer."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.components.checkers.calls import calls_match
from potstill.components.checkers.judge import CHECKERS, is_judged, judge, judge_answer
from potstill.components.checkers.pattern import compile_match
from potstill.components.checkers.schema import schema_valid
from potstill.core.errors import DataError
from potstill.core.records import BEHAVIOURS, Behaviour, Call, Gold, GoldCall, Row

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "enum": ["kitchen", "hall"]},
                    "level": {"type": "integer", "minimum": 0, "maximum": 100},
                },
                "required": ["room"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "all_off"}},
]


def call(name: str, **arguments: Any) -> Call:
    return Call(name=name, arguments=arguments)


def gold(name: str, optional: tuple[str, ...] = (), **accepted: list[Any]) -> GoldCall:
    return GoldCall(name=name, arguments=accepted, optional=optional)


def hermes(*calls: Call) -> str:
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': c.name, 'arguments': c.arguments})}\n</tool_call>" for c in calls
    )


def mistral(*calls: Call) -> str:
    return "[TOOL_CALLS] " + json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls])


def row(behaviour: Behaviour, *, completion: dict[str, Any] | None = None, **of_gold: Any) -> Row:
    return Row.model_validate(
        {
            "messages": [{"role": "user", "content": "kitchen light to 40"}],
            "tools": TOOLS,
            "behaviour": behaviour,
            "completion": completion,
            "gold": Gold(**of_gold) if of_gold else None,
        }
    )


# ---- what cannot be read ----


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{bad json}</tool_call>",
        "<tool_call></tool_call>",
        '<tool_call>{"name": "all_off", "arguments": {}}',
        '{"name": "all_off", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "all_off"}</tool_call>',
        '<tool_call>{"name": "all_off", "arguments": "{}"}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>["all_off"]</tool_call>',
        '<tool_call>{"name": "all_off", "arguments": {}} and more</tool_call>',
        '<tool_call>{"name": "a", "name": "b", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": 1, "x": 2}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": {"y": 1, "y": 1}}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": -Infinity}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": 1e999}}</tool_call>',
        '<tool_call>{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}</tool_call>",
        '<tool_call>{"name": "a", "arguments": {"x": ' + "[" * 100 + "]" * 100 + "}}</tool_call>",
        '<tool_call>{"name": "a", "arguments": {"x": ' + "[" * 100_000 + "}}</tool_call>",
        '<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>',
        "<|python_tag|>print(1)",
        '<|python_tag|>{"name": "a"}',
        '{"name": "all_off", "parameters": {}',
        "{'name': 'all_off', 'parameters': {}}",
        '{"name": "all_off", "parameters": {}} so there',
        '{"name": "all_off", "parameters": {}};',
        '{"name": "all_off", "parameters": {}, "arguments": {}}',
        "[TOOL_CALLS] []",
        '[TOOL_CALLS] {"name": "a", "arguments": {}}',
        '[TOOL_CALLS] [{"name": "a", "arguments": {}}] done',
        '[TOOL_CALLS] [{"name": "a"}]',
    ],
)
def test_a_malformed_call_is_an_error_and_never_a_right_refusal(text: str) -> None:
    assert parse_answer(text).parse_error
    for behaviour in BEHAVIOURS[2:]:
        verdict = judge(text, row(behaviour, match="^"))  # a pattern that any words satisfy, even none
        assert (verdict.parses, verdict.exact, verdict.made_call, verdict.schema_valid) == (False, False, True, False)


# ---- matching ----


@pytest.mark.parametrize(
    ("value", "accepted", "right"),
    [
        ("-1.5", "15", False),
        (-1.5, 15, False),
        (True, 1, False),
        (0, False, False),
        ("5", 5, False),
        (5, 5.0, True),
        (2**53 + 1, float(2**53), False),
        (None, "", False),
        (None, None, True),
        ("Kitchen", "kitchen", False),
        ([1, [2.0, {"a": True}]], [1, [2, {"a": True}]], True),
        ([1, [2, {"a": True}]], [1, [2, {"a": 1}]], False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([], {}, False),
    ],
)
def test_values_are_equal_in_type_and_in_depth(value: Any, accepted: Any, right: bool) -> None:
    for one, other in ((value, accepted), (accepted, value)):
        assert calls_match([call("f", x=one)], [gold("f", x=["never", other])]) is right


def test_arguments_may_be_left_out_only_where_optional_and_never_added() -> None:
    right = gold("f", optional=("y",), x=[1, 2], y=[3])
    assert calls_match([call("f", x=2)], [right])
    assert calls_match([call("f", x=1, y=3)], [right])
    assert not calls_match([call("f", x=1, y=4)], [right])
    assert not calls_match([call("f", y=3)], [right])
    assert not calls_match([call("f", x=1, z=0)], [right])
    assert not calls_match([call("g", x=1)], [right])
    assert not calls_match([call("f", x=1, z=0)], [gold("f", optional=("z",), x=[1])])


def test_a_greedy_matcher_would_fall_into_this() -> None:
    """The first call fits both golds, the second only the first one: first come, first served finds no pairing."""
    golds = [gold("f", x=[1, 2]), gold("f", x=[1])]
    assert calls_match([call("f", x=1), call("f", x=2)], golds)
    assert calls_match([call("f", x=2), call("f", x=1)], golds)
    assert not calls_match([call("f", x=2), call("f", x=2)], golds)


def test_the_number_of_calls_must_agree() -> None:
    golds = [gold("f", x=[1])]
    assert not calls_match([], golds)
    assert not calls_match([call("f", x=1), call("f", x=1)], golds)
    assert calls_match([], [])


small_calls = st.lists(st.builds(lambda x: call("f", x=x), st.integers(0, 3)), max_size=5)
small_golds = st.lists(
    st.builds(
        lambda xs, o: gold("f", optional=("x",) if o else (), x=sorted(xs)), st.sets(st.integers(0, 3)), st.booleans()
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(small_calls, small_golds, st.randoms(use_true_random=False))
def test_matching_agrees_with_brute_force_in_any_order(calls: list[Call], golds: list[GoldCall], rng: Any) -> None:
    oracle = len(calls) == len(golds) and any(
        all(c.arguments["x"] in g.arguments["x"] for c, g in zip(calls, order, strict=True))
        for order in itertools.permutations(golds)
    )
    assert calls_match(calls, golds) is oracle
    rng.shuffle(calls)
    rng.shuffle(golds)
    assert calls_match(calls, golds) is oracle


# ---- schemas ----


@pytest.mark.parametrize(
    ("made", "valid"),
    [
        (call("set_light", room="kitchen", level=40), True),
        (call("set_light", room="kitchen"), True),
        (call("set_light", level=40), False),
        (call("set_light", room="attic"), False),
        (call("set_light", room="hall", level=101), False),
        (call("set_light", room="hall", level="40"), False),
        (call("set_light", room="hall", level=True), False),
        (call("set_light", room="hall", colour="red"), False),
        (call("all_off"), True),
        (call("open_door"), False),
    ],
)
def test_schema_valid(made: Call, valid: bool) -> None:
    assert schema_valid([made], TOOLS) is valid
    assert schema_valid([call("all_off"), made], TOOLS) is valid


def test_no_call_breaks_no_schema_and_no_tool_allows_no_call() -> None:
    assert schema_valid([], TOOLS)
    assert not schema_valid([call("all_off")], [])


def test_tools_with_equal_names_in_two_rows_are_told_apart() -> None:
    strict = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}]
    assert schema_valid([call("f")], [{"type": "function", "function": {"name": "f"}}])
    assert not schema_valid([call("f")], strict)


def test_a_schema_on_the_network_is_refused() -> None:
    remote = {"type": "object", "properties": {"x": {"$ref": "https://example.com/schema.json"}}}
    with pytest.raises(DataError, match="'f'"):
        schema_valid([call("f", x=1)], [{"type": "function", "function": {"name": "f", "parameters": remote}}])


# ---- verdicts ----

LIGHT = gold("set_light", room=["kitchen"], level=[40])


def test_a_right_call() -> None:
    verdict = judge(hermes(call("set_light", room="kitchen", level=40.0)), row("tool_call", calls=(LIGHT,)))
    assert verdict.parses
    assert verdict.schema_valid
    assert verdict.exact is True
    assert verdict.made_call
    assert verdict.right_name is True


def test_calls_that_a_runtime_has_read_are_judged_like_those_in_the_text() -> None:
    right = call("set_light", room="kitchen", level=40)
    wanted = row("tool_call", calls=(LIGHT,))
    assert judge_answer(ParsedAnswer((right,), "On it."), wanted).exact is True
    assert judge_answer(ParsedAnswer((call("all_off"),), ""), wanted).exact is False
    assert judge_answer(ParsedAnswer((right,), "", "cut off"), wanted).exact is False
    assert judge_answer(ParsedAnswer((), "I can't do that."), row("refuse")).exact is True


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        (hermes(call("set_light", room="hall", level=40)), True, True),
        (hermes(call("set_light", room="attic", level=40)), False, True),
        (hermes(call("all_off")), True, False),
        (hermes(call("set_light", room="kitchen", level=40), call("all_off")), True, False),
        ("Which room?", None, False),
    ],
)
def test_a_wrong_call(text: str, schema: bool | None, name: bool) -> None:
    verdict = judge(text, row("tool_call", calls=(LIGHT,)))
    assert (verdict.exact, verdict.schema_valid, verdict.right_name) == (False, schema, name)


def test_a_right_call_followed_by_a_broken_one_is_wrong() -> None:
    text = hermes(call("set_light", room="kitchen", level=40)) + "\n<tool_call>\n{"
    verdict = judge(text, row("tool_call", calls=(LIGHT,)))
    assert (verdict.exact, verdict.right_name, verdict.parses) == (False, False, False)


def test_several_calls_in_any_order() -> None:
    many = row("multi_call", calls=(gold("all_off"), LIGHT))
    assert judge(hermes(call("set_light", room="kitchen", level=40), call("all_off")), many).exact is True
    assert judge(hermes(call("all_off"), call("all_off")), many).exact is False


def test_without_gold_the_rows_own_calls_are_the_right_ones() -> None:
    arguments = '{"room": "kitchen", "level": 40}'
    own = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "set_light", "arguments": arguments}}],
    }
    by_example = row("tool_call", completion=own)
    assert judge(hermes(call("set_light", room="kitchen", level=40)), by_example).exact is True
    assert judge(hermes(call("set_light", room="kitchen", level=41)), by_example).exact is False
    assert judge(hermes(call("set_light", room="kitchen")), by_example).exact is False


def test_a_row_that_says_nothing_is_not_judged() -> None:
    silent: tuple[Behaviour, ...] = ("tool_call", "multi_call", "answer")
    for behaviour in silent:
        verdict = judge("Hello", row(behaviour))
        assert verdict.exact is None
        assert verdict.right_name is None
        assert verdict.parses
    empty = {"role": "assistant", "content": ""}
    assert judge("", row("answer", completion=empty)).exact is None


def test_a_row_is_judged_exactly_when_its_checker_knows_the_answer() -> None:
    words = {"role": "assistant", "content": "It is 21 degrees."}
    for silent in (
        row("tool_call"),
        row("multi_call"),
        row("answer"),
        row("answer", completion=words | {"content": ""}),
    ):
        assert not is_judged(silent)
    judged = (
        row("tool_call", calls=(LIGHT,)), row("clarify"), row("refuse"), row("answer", completion=words),
        row("answer", match="21"),
    )  # fmt: skip
    for known in judged:
        assert is_judged(known)
        assert judge("", known).exact is False
    assert set(CHECKERS) == set(BEHAVIOURS)


@pytest.mark.parametrize(
    ("text", "clarify", "refuse"),
    [
        ("Which room do you mean?", True, False),
        ("I can't open doors.", False, True),
        ("I can\u2019t open doors.", False, True),
        ("Sorry, I'm unable to order food.", False, True),
        ("I am not able to do that.", False, True),
        ("I don't have a tool for that.", False, True),
        ("That is not something I can do.", False, True),
        ("Sorry, that's beyond what I can do.", False, True),
        ("There is no device called fridge.", False, True),
        ("I can't tell. Which room?", True, False),
        ("I can't wait to help you!", False, False),
        ("Sorry! The light is on now.", False, False),
        ("I don't have any doubt: it is on.", False, False),
        ("Done.", False, False),
        ("", False, False),
        (hermes(call("all_off")), False, False),
        ("I can't do that. " + hermes(call("all_off")), False, False),
        ("Which room? " + hermes(call("all_off")), False, False),
    ],
)
def test_default_rules_for_words(text: str, clarify: bool, refuse: bool) -> None:
    assert judge(text, row("clarify")).exact is clarify
    assert judge(text, row("refuse")).exact is refuse
    assert judge(text, row("refuse")).right_name is None


def test_gold_match_replaces_the_default() -> None:
    german = row("refuse", match=r"kann (ich )?nicht")
    assert judge("Das KANN ich nicht.", german).exact is True
    assert judge("Das kann ich nicht. Welcher Raum?", german).exact is False
    assert judge("I cannot do that.", german).exact is False
    assert judge("Which room?", row("clarify", match="level")).exact is False
    assert judge("Tell me the level.", row("clarify", match="level")).exact is True


def test_answers_in_words() -> None:
    by_example = row("answer", completion={"role": "assistant", "content": "It is  21 degrees.\n"})
    assert judge("It is 21\ndegrees.", by_example).exact is True
    assert judge("It is 22 degrees.", by_example).exact is False
    assert judge("it is 21 degrees.", by_example).exact is False
    assert judge("About 21 degrees", row("answer", match=r"\b21\b")).exact is True
    assert judge("About 121 degrees", row("answer", match=r"\b21\b")).exact is False
    assert judge("21 " + hermes(call("all_off")), row("answer", match=r"\b21\b")).exact is False


def test_the_format_is_kept_to_when_given() -> None:
    wanted = row("tool_call", calls=(gold("all_off"),))
    assert judge(mistral(call("all_off")), wanted, "mistral").exact is True
    verdict = judge(mistral(call("all_off")), wanted, "hermes")
    assert (verdict.exact, verdict.made_call, verdict.parses) == (False, True, False)


def test_a_broken_pattern_names_the_row() -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:3: gold\.match is not a valid regular expression"):
        compile_match("(", "rows.jsonl:3")
    broken = row("refuse", match="(")
    with pytest.raises(DataError, match=broken.row_id):
        judge("I cannot.", broken)
    assert compile_match("ab+", "x").search("xABB")


@pytest.mark.parametrize(
    ("wanted", "text", "right"),
    [
        (row("answer", completion={"role": "assistant", "content": "4"}), "hm\n</think>\n\n4", True),
        (row("answer", match=r"\b4\b"), "4? no.\n</think>\n\n5", False),
        (row("clarify"), "which room?\n</think>\n\nDone.", False),
        (row("refuse"), "I cannot do that. Or can I\n</think>\n\nDone.", False),
        (row("tool_call", calls=(gold("all_off"),)), hermes(call("all_off")) + "?\n</think>\n\nSorry.", False),
        (row("tool_call", calls=(gold("all_off"),)), "a <tool_call>\n</think>\n\n" + hermes(call("all_off")), True),
        (row("refuse"), hermes(call("all_off")) + "?\n</think>\n\nI can't do that.", True),
        (row("refuse"), "<think>I can't do that.", False),
    ],
)
def test_thinking_that_the_prompt_has_opened_is_not_judged(wanted: Row, text: str, right: bool) -> None:
    assert judge(text, wanted).exact is right
    assert judge_answer(ParsedAnswer((), text), row("refuse")).exact is judge(text, row("refuse")).exact
