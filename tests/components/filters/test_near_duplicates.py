"""Near-duplicates are found by the exact overlap of their shingles, whatever MinHash proposes."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.components.filters.near_duplicates import THRESHOLD, NearDuplicates, duplicate_groups, resemblance


def test_resemblance_is_the_jaccard_index_of_runs_of_five_characters() -> None:
    # " abcdef " has 4 runs of five characters, " abcdeg " has 4, and they share " abcd" and "abcde": 2 of 6
    assert resemblance("abcdef", "Abcdeg!") == 2 / 6
    assert resemblance("Turn it ON.", "turn it on") == 1
    assert resemblance("abc", "xyz") == 0


SENTENCE = "please turn the kitchen lights on off now and set a timer for ten minutes"
WORDS = st.sampled_from(SENTENCE.split())


@settings(max_examples=30)
@given(st.lists(st.lists(WORDS, min_size=4, max_size=12).map(" ".join), min_size=2, max_size=25))
def test_no_two_groups_hold_near_duplicates(texts: list[str]) -> None:
    groups = duplicate_groups(texts)
    for (one, a), (other, b) in combinations(zip(texts, groups, strict=True), 2):
        if a != b:
            assert resemblance(one, other) < THRESHOLD + 0.1, "MinHash may miss a pair only near the threshold"
            assert one != other


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    long = "set the timer in the kitchen for ten minutes and then remind me to call my mother"
    texts = [long, long + " today", "what is the weather", long + " today please", long]
    assert duplicate_groups(texts) == [0, 0, 2, 0, 0]


def test_the_nearest_text_is_found() -> None:
    index = NearDuplicates()
    index.add("play some jazz music in the living room now")
    index.add("play some jazz music in the living room")
    assert index.find("Play some jazz music in the living room!") == (1, 1.0)
    assert index.find("order a pizza") is None
    assert len(index) == 2
