"""Format numbers for people. Errors, tables, the model card and the report all use these functions."""

from __future__ import annotations

import math

__all__ = [
    "format_count",
    "format_duration",
    "format_interval",
    "format_large",
    "format_level",
    "format_number",
    "format_p_value",
    "format_percent",
    "format_points",
    "format_points_interval",
    "format_price",
    "format_size",
    "format_speed",
    "format_value",
]

SHARES = ("rate", "ratio")
"""Units that are shown in percent: a share of items, or student over teacher."""

_MISSING = "-"
_TIMES = (("d", "day", 86400.0), ("h", "hour", 3600.0), ("min", "minute", 60.0), ("s", "second", 1.0))
_LARGE = ((1e9, "billion", "bn"), (1e6, "million", "m"), (1e3, "thousand", "k"))


# ---- one number ----


def format_number(value: float, digits: int = 3) -> str:
    """A measurement to some significant digits, but no digit before the point is cut: `0.0123`, `12.3`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def format_percent(share: float) -> str:
    """A share, where 1 is the whole, with one decimal: `12.3 %`; `no bound` where it is not finite.

    More decimals keep a small share from looking like none, and a share that is almost 1 from looking like the whole.
    """
    return f"{_decimals(100 * share)} %" if math.isfinite(share) else "no bound"


def _decimals(percent: float, sign: str = "") -> str:
    """One decimal, or more if the number would look like 0 or 100; at most four."""
    texts = [f"{percent:{sign}.{digits}f}" for digits in range(1, 5)]
    return next((text for text in texts if float(text) not in (0, 100)), texts[0])


def format_value(value: float | None, unit: str, digits: int = 4) -> str:
    """A number in the unit of a gate: percent for rates and ratios, else some digits; `-` for None."""
    if value is None:
        return _MISSING
    return format_percent(value) if unit in SHARES else f"{format_number(value, digits)} {unit}".rstrip()


def format_interval(low: float | None, high: float | None, unit: str = "", digits: int = 4) -> str:
    """Both ends of an interval, and the unit once: `85.0 to 91.2 %`, `12 to 14 ms`, `at least 12 ms`; empty without."""
    if low is None or high is None:
        if low is None and high is None:
            return ""
        side = "at least" if high is None else "at most"
        return f"{side} {format_value(low if high is None else high, unit, digits)}"
    first, last = format_value(low, unit, digits), format_value(high, unit, digits)
    ending = " %" if unit in SHARES else f" {unit}"
    if unit and last.endswith(ending):
        first = first.removesuffix(ending)
    return f"{first} to {last}"


def format_points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign: `+1.2`, `-0.4`, `0.0`."""
    text = _decimals(100 * share, "+")
    return text if float(text) else "0.0"


def format_p_value(p: float) -> str:
    """The two-sided p-value of the exact McNemar test: `two-sided p = 0.012, exact McNemar test`."""
    value = f"= {format_number(p, 2)}" if p >= 0.0001 else "< 0.0001"
    return f"two-sided p {value}, exact McNemar test"


def format_level(confidence: float) -> str:
    """The level of an interval: `90 %`, `97.5 %`."""
    return f"{100 * confidence:.4g} %"


def format_points_interval(gain: float, low: float, high: float, confidence: float) -> str:
    """A difference of two shares with its interval: `+1.2 points (90 % interval +0.3 to +2.1)`."""
    ends = f"{format_points(low)} to {format_points(high)}"
    return f"{format_points(gain)} points ({format_level(confidence)} interval {ends})"


def format_price(amount: float) -> str:
    """An amount of money: two decimals from 1 on, two digits below."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}"


# ---- counts and sizes ----


def format_count(count: float, thing: str) -> str:
    """A number of things: `1 token`, `4,096 tokens`."""
    return f"{count:,.0f} {thing}{'' if count == 1 else 's'}"


def format_large(count: float, *, short: bool = False) -> str:
    """A large count in words: `1.23 billion`, `4.56 million`; short: `1.23 bn`, `4.56 m`, `7.89 k`."""
    for scale, word, letter in _LARGE:
        if count >= scale and (short or scale > 1e3):
            return f"{count / scale:.3g} {letter if short else word}"
    return f"{count:,.3g}" if short else f"{count:,.0f}"


def format_size(nbytes: float) -> str:
    """Bytes in decimal units, as vendors count them: `1.23 GB`, `456.7 MB`."""
    if nbytes >= 1e9:
        return f"{nbytes / 1e9:,.2f} GB"
    size, unit = (nbytes / 1e6, "MB") if nbytes >= 1e6 else (nbytes / 1e3, "kB")
    return f"{size:,.{1 if size >= 10 else 2}f} {unit}"


# ---- time and speed ----


def format_duration(low: float, high: float | None = None, *, short: bool = False) -> str:
    """Seconds, or a range of them, in the largest unit that fits `high`: `2.6 to 10 minutes`; short: `2.6-10 min`."""
    high = low if high is None else high
    brief, unit, size = next((row for row in _TIMES if high >= row[2]), ("ms", "millisecond", 1e-3))
    ends = dict.fromkeys(f"{end:,.0f}" if end >= 10 else f"{end:.2g}" for end in (low / size, high / size))
    if short:
        return f"{'-'.join(ends)} {brief}"
    return f"{' to '.join(ends)} {unit}{'' if list(ends) == ['1'] else 's'}"


def format_speed(low: float, high: float, between: str = " to ") -> str:
    """A range of tokens per second, with as many digits as such a range deserves: `12.3 to 14.5`."""
    digits = 0 if low >= 20 else 1 if low >= 1 else 2
    return f"{low:,.{digits}f}{between}{high:,.{digits}f}"
