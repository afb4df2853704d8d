"""JSON that another program would read otherwise, or could not write, is refused."""

from __future__ import annotations

import pytest

from potstill.core.json_values import BadJson, plain_numbers, read_foreign, read_strictly


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1", "Expecting"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' appears twice in one object"),
        ("[NaN]", "NaN is not a JSON value"),
        ("[-Infinity]", "-Infinity is not a JSON value"),
        ("[1e999]", "1e999 is not a JSON value"),
        ('"\\ud83d"', "half of a surrogate pair"),
        ('{"\\uDC00": 1}', "half of a surrogate pair"),
        ("1" * 5000, "too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
    ],
)
def test_what_is_refused_is_named(text: str, says: str) -> None:
    with pytest.raises(BadJson, match=says):
        read_strictly(text)


def test_what_is_json_is_read() -> None:
    assert read_strictly('["\\ud83d\\ude00", 1.5, null]') == ["😀", 1.5, None]
    assert read_strictly("[" * 100 + "]" * 100)
    assert read_strictly('["' + "[{" * 200 + '"]') == ["[{" * 200]


def test_another_program_may_repeat_keys_and_write_infinity() -> None:
    """transformers writes the Infinity of a Mamba config, and hand-made configs repeat keys."""
    assert read_foreign('{"limits": [0.0, Infinity], "a": 1, "a": 2}') == {"limits": [0.0, float("inf")], "a": 2}
    for text, says in (("[" * 101 + "]" * 101, "deeply"), ('"\\udc00"', "surrogate"), ("-" + "1" * 5000, "digits")):
        with pytest.raises(BadJson, match=says):
            read_foreign(text)


def test_whole_numbers_have_no_point() -> None:
    given = {"a": [1.0, -0.0, 1e15, 0.5, True, "1.0"], "b": {"c": 2.0**63}}
    plain = plain_numbers(given)
    assert repr(plain["a"]) == "[1, 0, 1000000000000000, 0.5, True, '1.0']"
    assert isinstance(plain["b"]["c"], float)
    with pytest.raises(BadJson, match="9223372036854775808, which needs more than 64 bits"):
        plain_numbers([2**63])
