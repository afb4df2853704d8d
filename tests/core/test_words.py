"""A mistyped word is reported with the nearest known one, or with all of them; quoted text acts on no terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.words import escaped, nearest_hint


def test_hint_names_the_nearest_word_or_lists_all() -> None:
    known = ["learning_rate", "epochs"]
    assert nearest_hint("learning_rte", known) == "did you mean 'learning_rate'?"
    assert nearest_hint("zzz", known) == "there are learning_rate, epochs"
    assert nearest_hint(7, known, "known keys are") == "known keys are learning_rate, epochs"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\0b\x7fc\x9bd", r"a\x00b\x7fc\x9bd"),
        ("two\nlines\r", "two\nlines\\r"),
        ("gnp\u202e.exe", r"gnp\u202e.exe"),
        ("half \ud800", r"half \ud800"),
        ("\ufeffx\u2028y", r"\ufeffx\u2028y"),
        ("Zoë 東京\u3000👩\u200d🚒", "Zoë 東京\u3000👩\u200d🚒"),
    ],
)
def test_a_terminal_is_given_no_orders(text: str, shown: str) -> None:
    assert escaped(text, 300) == shown


def test_long_text_is_cut_and_says_so() -> None:
    assert escaped("x" * 300, 300) == "x" * 300
    assert escaped("x" * 5000, 10) == "xxxxxxxxxx... (5,000 characters)"


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_shown_can_be_printed(text: str) -> None:
    shown = escaped(text, 300)
    shown.encode()
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char != "\n"]
