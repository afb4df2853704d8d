"""Texts that differ in case, spaces and punctuation alone are the same; numbers and symbols tell texts apart."""

from __future__ import annotations

import time

import pytest

from potstill.core.leakage import leaked_texts, same_words, unrepeated_texts
from potstill.core.records import LabelledRow


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Turn on the light.", "turn on the light"),
        ("turn  on\tthe\nlight ", "turn on the light"),
        ("Don\u2019t stop!", "dont stop"),
        ("light-switch", "light switch"),
        ("\u00bfQu\u00e9 hora es?", "que\u0301 hora es"),
        ("STRASSE", "stra\u00dfe"),
        ("\uff21\uff22\uff23\uff01", "abc"),
        ("a\u200bb\u00a0c", "ab c"),
        ("\u201cstop\u201d", "(stop)"),
        ("\u4f60\u597d\uff01", "\u4f60\u597d\u3002"),
        ("...", " ... "),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert same_words(one) == same_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("set it to 1.5", "set it to 15"),
        ("set it to 1 5", "set it to 15"),
        ("set it to -5", "set it to 5"),
        ("at 7:30", "at 730"),
        ("5 %", "5"),
        ("C#", "C"),
        ("1/2", "12"),
        ("2 + 2", "2 2"),
        ("\U0001f600", "\U0001f621"),
        ("caf\u00e9", "cafe"),
        ("\u0939\u093f", "\u0939\u0940"),
        ("?", "!"),
    ],
)
def test_other_words(one: str, other: str) -> None:
    assert same_words(one) != same_words(other)


def test_many_long_texts_are_compared_quickly() -> None:
    rows = [LabelledRow(text=f"row {i} " + "word " * 50, label="a") for i in range(2000)]
    begun = time.monotonic()
    assert len(unrepeated_texts([*rows, *rows])) == 2000
    assert len(leaked_texts(rows, rows)) == 2000
    assert time.monotonic() - begun < 5
