"""Filters drop what they are for, say why, and keep everything else."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.components.filters.rows import FILTERS, find_dropped
from potstill.core.records import Row, parse_row


def row(text: str, answer: str = "Yes.", **others: Any) -> Row:
    value = {"messages": [{"role": "user", "content": text}], **others}
    return parse_row(value | {"completion": {"role": "assistant", "content": answer}}, (), False, f"t.jsonl:{text[:9]}")


def dropped(rows: list[Row], *names: Any, test: tuple[Row, ...] = ()) -> list[str | None]:
    return [found and found[0] for found in find_dropped(rows, names, test)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("write to anna.k+1@mail.company.co.uk please", "an e-mail address"),
        ("call +49 30 1234567 today", "a telephone number"),
        ("call (212) 555-0198 today", "a telephone number"),
        ("pay from DE89 3704 0044 0532 0130 00", "an IBAN"),
        ("my card is 4111 1111 1111 1111", "a payment card number"),
        ("it is 078-05-1120", "a social security number"),
        ("set the timer to 10:30 on 2026-05-01", None),
        ("order 4111111111111112, 5 of 12,000 pieces", None),
        ("mail user@example.com or version 1.2.3.4", None),
        ("the code is AB12 and the number 2026-11-30 17:35:24", None),
    ],
)
def test_personal_data_is_found_by_its_form(text: str, what: str | None) -> None:
    expected = (("pii", f"it has {what}"),) if what else (None,)
    assert tuple(find_dropped([row(text)], ["pii"], ())) == expected
    assert tuple(find_dropped([row("x", text)], ["pii"], ())) == expected


def test_refusals_are_dropped_where_an_answer_is_due() -> None:
    no = "I'm sorry, I cannot help with that."
    rows = [row("a", no), row("b", no, behaviour="refuse"), row("c", no, gold={"match": "sorry"}), row("d", "Paris.")]
    assert dropped(rows, "refusal") == ["refusal", None, None, None]


def test_near_duplicates_of_earlier_rows_are_dropped_and_samples_stay() -> None:
    text = "turn off the lights in the kitchen and lock the front door of the house"
    rows = [row(text), row(text, "No."), row(text + " now"), row("what is the weather in Oslo"), row(text + "!")]
    assert dropped(rows, "near_duplicates") == [None, None, "near_duplicates", None, "near_duplicates"]


def test_prompts_of_test_rows_are_dropped_also_short_and_quoted_ones() -> None:
    test = (row("turn off the lights in the kitchen and lock the door"), row("hi there"))
    rows = [
        row("Turn off the lights in the kitchen and lock the doors!"),
        row("Somebody wrote: turn off the lights in the kitchen and lock the door. Then they left the house for good."),
        row("Hi, there!"),
        row("hi there my friend, how is the weather"),
        row("open the window"),
    ]
    assert dropped(rows, "decontamination", test=test) == [*["decontamination"] * 3, None, None]


def test_a_row_is_dropped_by_the_first_filter_and_every_row_is_accounted_for() -> None:
    rows = [row("mail a@b.org", "I cannot do that."), row("x", "I cannot do that."), row("y")]
    assert dropped(rows, "pii", "refusal") == ["pii", "refusal", None]
    assert dropped(rows, "refusal", "pii") == ["refusal", "refusal", None]
    assert dropped([], *FILTERS) == [] and dropped(rows) == [None] * 3
