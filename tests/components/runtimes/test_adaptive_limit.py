"""The limit on requests in flight on a clock of its own: additive increase, multiplicative decrease, Retry-After."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.runtimes import adaptive_limit
from potstill.components.runtimes.adaptive_limit import AdaptiveLimit, Slot


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_round_of_answers_raises_the_limit_by_one(clock: Clock) -> None:
    limit = AdaptiveLimit(100, clock)
    limit.decrease(1.0, None)
    assert limit.limit == 50
    for _ in range(50):
        limit.increase()
    assert limit.limit == pytest.approx(51, abs=0.02)


def test_requests_that_were_on_their_way_together_halve_the_limit_once(clock: Clock) -> None:
    limit = AdaptiveLimit(16, clock)
    slots = [Slot(limit, 1.0 + n / 100) for n in range(16)]
    clock.now = 2.0
    for slot in slots:
        slot.throttled(None)
    assert limit.limit == 8
    clock.now = 3.0
    late = Slot(limit, 2.5)
    late.throttled(None)
    assert limit.limit == 4


def test_the_limit_never_falls_below_one_or_rises_above_the_maximum(clock: Clock) -> None:
    limit = AdaptiveLimit(4, clock)
    for second in range(1, 20):
        clock.now = float(second)
        limit.decrease(second - 0.5, None)
    assert limit.limit == 1
    for _ in range(1000):
        limit.increase()
    assert limit.limit == 4


def test_nothing_is_sent_until_the_endpoint_allows_it(clock: Clock) -> None:
    limit = AdaptiveLimit(4, clock)
    clock.now = 10.0
    limit.decrease(9.0, 30.0)
    limit.decrease(9.0, 5.0)  # a shorter one does not shorten the longer one
    assert limit.seconds_until_room() == 30
    clock.now = 39.5
    assert limit.seconds_until_room() == 0.5
    clock.now = 40.0
    assert limit.seconds_until_room() == 0


@given(st.lists(st.sampled_from(["answer", "throttle", "wait"]), max_size=60), st.integers(1, 12))
def test_there_are_never_more_in_flight_than_the_limit_allows(events: list[str], maximum: int) -> None:
    """Work in which the endpoint answers as the events say, after the time that asyncio takes for one turn."""
    clock, told = Clock(), iter(events)

    async def work(limit: AdaptiveLimit, most: list[int]) -> None:
        async with limit.slot() as slot:
            allowed = max(1, int(limit.limit))
            most.append(limit.in_flight - allowed)
            clock.now += 1.0
            await asyncio.sleep(0)
            what = next(told, "answer")
            if what == "answer":
                slot.succeeded()
            else:
                slot.throttled(0.0 if what == "wait" else None)

    async def run() -> None:
        limit, most = AdaptiveLimit(maximum, clock), list[int]()
        await asyncio.gather(*(work(limit, most) for _ in range(40)))
        assert len(most) == 40 and max(most) <= 0
        assert limit.in_flight == 0 and 1 <= limit.limit <= maximum

    asyncio.run(run())


def test_a_wait_is_slept_through(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(adaptive_limit.asyncio, "sleep", sleep)

    async def run() -> None:
        limit = AdaptiveLimit(2, clock)
        async with limit.slot() as slot:
            clock.now = 1.0
            slot.throttled(7.0)
        async with limit.slot():
            assert clock.now == 8.0

    asyncio.run(run())
    assert slept == [7.0]
