"""A bounded queue before the slots of llama.cpp: a request is answered soon, or told at once to come back later."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from potstill.apps.serve.errors import ApiError

__all__ = ["Slots"]

_WEIGHT = 0.2  # of the newest request in the mean of their seconds
_LONGEST_HINT = 60


class Slots:
    """Slots that requests take in the order in which they came.

    Args:
        slots: requests that are worked on at the same time.
        waiting: requests that may wait for a slot.
    """

    def __init__(self, slots: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self.slots, self.most_waiting = slots, waiting
        self.active = self.waiting = 0
        self._seconds = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot inside the block.

        Raises:
            ApiError: all slots are taken, and as many requests wait as may; status 429.
        """
        if self._free.locked() and self.waiting >= self.most_waiting:
            raise ApiError(
                429,
                "rate_limit_error",
                f"{self.active} requests are being answered and {self.waiting} wait, which is all that this server "
                "accepts. Send the request again after the time that the header Retry-After names.",
                code="queue_full",
                retry_after=self._hint(),
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        begun = time.monotonic()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._free.release()
            taken = time.monotonic() - begun
            self._seconds = taken if not self._seconds else (1 - _WEIGHT) * self._seconds + _WEIGHT * taken

    def _hint(self) -> int:
        """Seconds after which a place in the queue should be free."""
        return max(1, min(_LONGEST_HINT, math.ceil(self._seconds * (self.waiting + 1) / self.slots)))
