"""How many requests an endpoint is sent at a time: additive increase, multiplicative decrease (Chiu and Jain, 1989).

Every answer raises the limit by 1/limit, which is 1 for each round of requests. A 429 or a fault of the server (5xx)
halves it, once for all requests that were on their way together. Where the reply says for how long to wait
(Retry-After), nothing is sent until then. The limit begins at the maximum, so an endpoint that keeps up is not slowed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["AdaptiveLimit", "Slot"]

_DECREASE = 0.5


class Slot:
    """A request in flight; `began` is the time when it was sent."""

    def __init__(self, limit: AdaptiveLimit, began: float) -> None:
        self.began = began
        self._limit = limit

    def succeeded(self) -> None:
        """Note an answer."""
        self._limit.increase()

    def throttled(self, wait: float | None) -> None:
        """Note that the endpoint has too much to do, and for how many seconds it asks to wait, if it says so."""
        self._limit.decrease(self.began, wait)


class AdaptiveLimit:
    """The limit on requests in flight.

    Args:
        maximum: the most that is sent at a time.
        clock: seconds.
    """

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.maximum = maximum
        self.limit = float(maximum)
        self.in_flight = 0
        self._clock = clock
        self._decreased = -float("inf")  # when the limit was lowered last
        self._resume = -float("inf")  # until when nothing is sent
        self._freed = asyncio.Event()

    def increase(self) -> None:
        """Raise the limit after an answer."""
        self.limit = min(float(self.maximum), self.limit + 1 / self.limit)

    def decrease(self, began: float, wait: float | None) -> None:
        """Lower the limit because of a request that was sent at `began`, unless it was sent before the last time."""
        now = self._clock()
        if began > self._decreased:
            self.limit = max(1.0, self.limit * _DECREASE)
            self._decreased = now
        if wait is not None:
            self._resume = max(self._resume, now + wait)

    def seconds_until_room(self) -> float | None:
        """Seconds until a request may be sent; None where one in flight must end first."""
        if self.in_flight >= int(self.limit):
            return None
        return max(0.0, self._resume - self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait until there is room for a request, and hold it until the end of the block."""
        while (wait := self.seconds_until_room()) != 0:
            if wait:
                await asyncio.sleep(wait)
            else:
                self._freed.clear()
                await self._freed.wait()
        self.in_flight += 1
        try:
            yield Slot(self, self._clock())
        finally:
            self.in_flight -= 1
            self._freed.set()
