"""llama.cpp in a child process that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.errors import StepError

__all__ = ["Address", "Engine"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds before the child is started again: doubled with each failure in a row, up to the second number."""
_STEADY_SECONDS = 30.0
"""A child that lived so long did not fail in a row with the one before it."""


@dataclass(frozen=True)
class Address:
    """Where the child listens; another one after each start."""

    url: str
    key: str


class Engine:
    """Keeps a llama.cpp server running.

    Args:
        make: makes the server, which is not started yet.
        note: is called with a sentence when the child ends or cannot start.
    """

    def __init__(self, make: Callable[[], GGUFServer], note: Callable[[str], None]) -> None:
        self._make, self._note = make, note
        self._address: Address | None = None
        self._changed = asyncio.Condition()
        self._server: GGUFServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.restarts = 0
        self.problem: str | None = None
        """Why the child does not run, as a sentence; None while it runs or starts."""

    @property
    def address(self) -> Address | None:
        """Where the child listens; None while there is none."""
        return self._address

    @property
    def slot_context(self) -> int | None:
        """Tokens of one slot, which are at most those that the model was made for; None while there is no child."""
        return self._server.slot_context if self._server else None

    async def start(self) -> None:
        """Start the child, and keep it running until `stop`.

        Raises:
            StepError: llama.cpp cannot load the file.
        """
        server = await asyncio.to_thread(self._enter)
        self._task = asyncio.create_task(self._keep(server))
        await self.ready()

    async def stop(self) -> None:
        """End the child."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def ready(self, other_than: Address | None = None) -> Address:
        """Where the child listens, as soon as it does.

        Args:
            other_than: an address that does not answer any more; a later child's is waited for.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._address not in (None, other_than))
            assert self._address is not None
            return self._address

    def _enter(self) -> GGUFServer:
        return self._make().__enter__()

    async def _keep(self, started: GGUFServer) -> None:
        waiting: GGUFServer | None = started
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                server = waiting if waiting is not None else await asyncio.to_thread(self._enter)
                waiting = None
                await self._serve(server)
                self.problem = "The llama.cpp process ended, and is started again."
                self._note(self.problem)
            except StepError as error:
                self.problem = str(error)
                self._note(self.problem)
            self.restarts += 1
            pause = _FIRST_PAUSE if time.monotonic() - begun > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _serve(self, server: GGUFServer) -> None:
        """Announce a child until it ends."""
        try:
            await self._announce(server, Address(server.address, server.api_key))
            self.problem = None
            await asyncio.to_thread(server.wait)
        finally:
            self._address = self._server = None
            server.__exit__(None, None, None)  # of a child that runs, it ends the thread that waits

    async def _announce(self, server: GGUFServer, address: Address) -> None:
        async with self._changed:
            self._server, self._address = server, address
            self._changed.notify_all()
