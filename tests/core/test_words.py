"""A mistyped word is reported with the nearest known one, or with all of them."""

from __future__ import annotations

from potstill.core.words import nearest_hint


def test_hint_names_the_nearest_word_or_lists_all() -> None:
    known = ["learning_rate", "epochs"]
    assert nearest_hint("learning_rte", known) == "did you mean 'learning_rate'?"
    assert nearest_hint("zzz", known) == "there are learning_rate, epochs"
    assert nearest_hint(7, known, "known keys are") == "known keys are learning_rate, epochs"
