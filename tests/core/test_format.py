"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from potstill.core.format import (
    format_count,
    format_duration,
    format_interval,
    format_large,
    format_level,
    format_number,
    format_p_value,
    format_percent,
    format_points,
    format_points_interval,
    format_price,
    format_size,
    format_speed,
    format_value,
)


def test_sizes_are_in_decimal_units() -> None:
    assert [format_size(n) for n in (0, 919, 9_190, 659_500, 2_820_000, 984_100_000, 1.31e12)] == [
        "0.00 kB", "0.92 kB", "9.19 kB", "659.5 kB", "2.82 MB", "984.1 MB", "1,310.00 GB",
    ]  # fmt: skip


def test_durations_are_in_the_largest_unit_that_fits() -> None:
    spans = ((156, 600), (60, 60), (1800, 7200), (0.002, 0.004), (90_000, 200_000))
    assert [format_duration(*span) for span in spans] == [
        "2.6 to 10 minutes", "1 minute", "0.5 to 2 hours", "2 to 4 milliseconds", "1 to 2.3 days",
    ]  # fmt: skip
    assert [format_duration(*span, short=True) for span in ((156, 600), (0.017, 0.017), (204.9, 204.9))] == [
        "2.6-10 min", "17 ms", "3.4 min",
    ]  # fmt: skip
    assert format_duration(3.42, short=True) == "3.4 s"
    # a hundred hours and more are no power of ten
    assert format_duration(1e6, 1e8) == "12 to 1,157 days"


def test_counts() -> None:
    assert [format_count(n, "token") for n in (0, 1, 4096)] == ["0 tokens", "1 token", "4,096 tokens"]
    assert [format_large(n) for n in (0, 999_999, 4_560_000, 7.25e9)] == [
        "0",
        "999,999",
        "4.56 million",
        "7.25 billion",
    ]
    assert [format_large(n, short=True) for n in (0, 500, 7890, 2e6, 3e9)] == ["0", "500", "7.89 k", "2 m", "3 bn"]


def test_speeds_have_the_digits_that_a_range_deserves() -> None:
    assert [format_speed(*pair, "-") for pair in ((0.012, 0.5), (1.4, 2.2), (879.4, 3187.9))] == [
        "0.01-0.50", "1.4-2.2", "879-3,188",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "three", "four"),
    [
        (0.012344, "0.0123", "0.01234"),
        (12.345, "12.3", "12.35"),
        (999.7, "1,000", "999.7"),
        (12_345.6, "12,346", "12,346"),
    ],
)
def test_no_digit_before_the_point_is_cut(value: float, three: str, four: str) -> None:
    assert (format_number(value), format_number(value, 4)) == (three, four)


def test_values_stand_in_the_unit_of_their_gate() -> None:
    assert format_value(0.9123, "rate") == format_value(0.9123, "ratio") == "91.2 %"
    assert format_value(12.3456, "ms") == "12.35 ms"
    assert format_value(3.0, "") == "3"
    assert format_value(None, "ms") == "-"
    assert format_percent(math.inf) == "no bound"


def test_intervals_name_the_unit_once() -> None:
    assert format_interval(0.85, 0.912, "rate") == "85.0 to 91.2 %"
    assert format_interval(12, 14.5, "ms") == "12 to 14.5 ms"
    assert format_interval(12, 14.5) == "12 to 14.5"
    assert format_interval(0.85, None, "ratio") == "at least 85.0 %"
    assert format_interval(None, None, "ms") == ""


def test_differences_p_values_and_prices() -> None:
    assert [format_points(x) for x in (0.0123, -0.004, 0.0004, 0.0)] == ["+1.2", "-0.4", "+0.04", "0.0"]
    assert format_points_interval(0.01, -0.0002, 0.021, 0.9) == "+1.0 points (90 % interval -0.02 to +2.1)"
    assert [format_p_value(p) for p in (0.0123, 0.00001)] == [
        "two-sided p = 0.012, exact McNemar test", "two-sided p < 0.0001, exact McNemar test",
    ]  # fmt: skip
    assert [format_level(level) for level in (0.9, 0.95, 0.975)] == ["90 %", "95 %", "97.5 %"]


def test_a_share_that_is_almost_all_or_nothing_does_not_look_so() -> None:
    shares = (1.0, 0.99985, 0.9999999, 0.0, 0.0003, -0.0001, 0.9949)
    assert [format_percent(share) for share in shares] == [
        "100.0 %", "99.98 %", "100.0 %", "0.0 %", "0.03 %", "-0.01 %", "99.5 %",
    ]  # fmt: skip
    assert format_interval(0.99992, 1.0, "rate") == "99.99 to 100.0 %"
    assert [format_price(x) for x in (0, 1234.5, 0.01234)] == ["0.00", "1,234.50", "0.012"]
