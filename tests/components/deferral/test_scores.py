"""Confidence of an answer from its tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.deferral.scores import SCORES, ScoredToken, answer_bearing, score_answer
from potstill.core.records import Call


def tokens(*parts: tuple[str, float, float]) -> list[ScoredToken]:
    return [ScoredToken(text.encode(), log_prob, margin) for text, log_prob, margin in parts]


CALL = tokens(
    ("<tool_call>", -0.01, 5), ('{"name": "', -0.01, 0.1), ("set", -0.2, 2), ("_light", -0.01, 4),
    ('", "arguments": {"room": "', -3, 0.2), ("kitch", -0.5, 1), ("en", -0.02, 3), ('", "on": ', -0.01, 0.3),
    ("true", -0.1, 2.5), ("}}", -0.01, 0.2), ("</tool_call>", -0.01, 6),
)  # fmt: skip
CALLS = [Call(name="set_light", arguments={"room": "kitchen", "on": True})]


def test_tokens_that_bear_a_call_are_its_name_and_its_values() -> None:
    assert b"|".join(token.text for token in answer_bearing(CALL, CALLS)) == b"set|_light|kitch|en|true"


def test_scores_of_a_call() -> None:
    found = score_answer(CALL, CALLS)
    assert found["margin"] == 1  # the doubt about where the next key begins does not count
    assert found["minimum"] == -3
    assert found["total"] == pytest.approx(sum(token.log_prob for token in CALL))
    assert found["mean"] == pytest.approx(found["total"] / len(CALL))
    assert list(found) == list(SCORES)


def test_tokens_that_bear_an_answer_in_words() -> None:
    said = tokens(("It", -1, 2), (",", -1, 0.1), (" is", -1, 3), (".", -1, 0.1), ("", -1, 0.1))
    assert [token.text for token in answer_bearing(said, [])] == [b"It", b" is"]
    assert answer_bearing(tokens(("!", -1, 1)), []) == tokens(("!", -1, 1))
    half = [ScoredToken(b"\xc3", -1, 1), ScoredToken(b"\xa9", -1, 2)]
    assert answer_bearing(half, []) == half


def test_an_answer_without_tokens_has_no_score() -> None:
    assert score_answer([], []) == {}


@given(st.lists(st.tuples(st.binary(max_size=6), st.floats(-50, 0), st.floats(0, 50)), min_size=1, max_size=20))
def test_a_surer_answer_never_scores_lower(parts: list[tuple[bytes, float, float]]) -> None:
    said = [ScoredToken(*part) for part in parts]
    surer = [ScoredToken(text, log_prob / 2, margin + 1) for text, log_prob, margin in said]
    before, after = score_answer(said, CALLS), score_answer(surer, CALLS)
    assert all(after[name] >= before[name] for name in SCORES)
