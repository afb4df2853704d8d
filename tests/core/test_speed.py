"""Intervals of speed hold what differs between loads of the server."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from scipy import stats

from finished_run import speed
from potstill.core.artifacts.speed import SpeedTiming


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_interval_is_students(confidence: float) -> None:
    logs = (1.0, 2.5, 3.0)
    timing = SpeedTiming.of([math.exp(x) for x in logs], [2 * math.exp(x) for x in logs], confidence)
    error = statistics.stdev(logs) / math.sqrt(3)
    low, high = stats.t.interval(confidence, 2, statistics.fmean(logs), error)
    assert (math.log(timing.low), math.log(timing.high)) == pytest.approx((low, high))
    assert math.log(timing.median) == pytest.approx(statistics.fmean(logs))
    assert timing.tail_high == pytest.approx(2 * timing.high)


@pytest.mark.parametrize("between", [0.0, 0.05, 0.2])
def test_intervals_cover_the_true_median_however_much_the_loads_differ(between: float) -> None:
    rng, covered, tries = random.Random(3), 0, 4000
    for _ in range(tries):
        levels = [rng.gauss(0, between) for _ in range(3)]
        medians = [math.exp(statistics.median(rng.gauss(level, 0.1) for _ in range(40))) for level in levels]
        timing = SpeedTiming.of(medians, medians, 0.95)
        covered += timing.low <= 1 <= timing.high
    assert covered / tries >= 0.94


def test_another_confidence_needs_no_other_measurement() -> None:
    wide, narrow = speed().at(0.95), speed().at(0.9)
    assert wide.ttft_ms.low < narrow.ttft_ms.low < narrow.ttft_ms.high < wide.ttft_ms.high
    assert wide.at(0.9) == narrow
    assert "intervals are 95 % intervals" in wide.method and "intervals are 90 % intervals" in narrow.method


def test_two_loads_are_too_few() -> None:
    with pytest.raises(ValueError, match="needs 3 values, got 2"):
        SpeedTiming.of([1, 2], [1, 2], 0.9)
