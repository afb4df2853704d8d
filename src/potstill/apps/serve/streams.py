"""Streams of server-sent events: passed on as bytes, and ended when the client goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from potstill.apps.serve.errors import unavailable
from potstill.apps.serve.exchange import Exchange
from potstill.apps.serve.replies import event
from potstill.apps.serve.upstream import ChildDied

__all__ = ["CancellableStream", "relayed"]

_USAGE = b'data: {"choices":[],'
_END = b"\n\n"
_GONE = 499


class CancellableStream(StreamingResponse):
    """A stream of events that stops, and with it the decoding, as soon as the client closes the connection.

    Starlette's own waits for the next chunk before it notices, and the first one may take long.
    """

    media_type = "text/event-stream"
    _stack: AsyncExitStack
    _exchange: Exchange
    _seconds: float

    def finish_with(self, stack: AsyncExitStack, exchange: Exchange, seconds: float) -> None:
        """What to close after the last byte, and the seconds in which it must have been sent."""
        self._stack, self._exchange, self._seconds = stack, exchange, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. A client that reads too slowly is cut off, because it holds a slot."""
        end = "client_disconnected"
        async with self._stack:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                with anyio.move_on_after(self._seconds) as limit:
                    await self.stream_response(send)
                    end = ""
                group.cancel_scope.cancel()
            if end:
                slow = limit.cancelled_caught
                self._exchange.status, self._exchange.error = (504, "timeout") if slow else (_GONE, end)


async def relayed(chunks: AsyncIterator[bytes], exchange: Exchange, *, usage: bool) -> AsyncIterator[bytes]:
    """llama.cpp's events, without the one that counts tokens unless the client asked for it.

    Args:
        chunks: bytes as they arrive; events may be cut anywhere.
        exchange: counts the tokens, and records how the stream ended.
        usage: whether the client wants the event that counts tokens.
    """
    rest = b""
    try:
        async for chunk in chunks:
            *events, rest = (rest + chunk).split(_END)
            kept = [each for each in events if _note_event(each, exchange) or usage]
            if kept:
                exchange.sent()
                yield _END.join(kept) + _END
    except ChildDied:
        message = "The model's process ended in the middle of this answer. Send the request again."
        error = unavailable(message, "engine_died")
        exchange.failed(error)
        yield event(error.body())


def _note_event(data: bytes, exchange: Exchange) -> bool:
    """Note what an event says of the whole answer; returns whether it is more than the count of tokens."""
    if data.startswith(_USAGE):
        counted = json.loads(data.removeprefix(b"data: "))["usage"]
        exchange.input_tokens, exchange.output_tokens = counted["prompt_tokens"], counted["completion_tokens"]
        return False
    if b'"finish_reason":"' in data:
        exchange.finish_reason = data.split(b'"finish_reason":"', 1)[1].split(b'"', 1)[0].decode()
    return True
