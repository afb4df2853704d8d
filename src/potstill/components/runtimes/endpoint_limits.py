"""Limits on what is read of an endpoint's reply, whatever its status."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
from openai import DefaultAsyncHttpxClient

from potstill.components.runtimes.endpoint_reply import OddReply

__all__ = ["limited_client"]

_MOST_ERROR_BYTES = 64 << 10
"""Size of what is read of an error's body. It only adds a message to the status."""


def limited_client(most_bytes: int) -> httpx2.AsyncClient:
    """A client that reads replies with a limit, and follows no redirect, because the key is for the configured host.

    It asks for replies without compression: a few kilobytes of a compressed one can grow to gigabytes in one step.

    Args:
        most_bytes: size of the longest reply. Reading a longer one, a compressed one, or one that breaks off raises
            `OddReply`. The body of an error ends early instead, so that its status is still known.
    """

    async def limit(response: httpx2.Response) -> None:
        encoding = response.headers.pop("content-encoding", "identity")  # so that nothing is uncompressed
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if response.is_success:
            response.stream = _Whole(response.stream, most_bytes, encoding)
        else:
            response.stream = _Beginning(response.stream, _MOST_ERROR_BYTES, encoding)

    return DefaultAsyncHttpxClient(
        follow_redirects=False, headers={"Accept-Encoding": "identity"}, event_hooks={"response": [limit]}
    )


class _Whole(httpx2.AsyncByteStream):
    """A body that raises `OddReply` where it cannot be read as a whole."""

    def __init__(self, stream: httpx2.AsyncByteStream, most_bytes: int, encoding: str) -> None:
        self._stream, self._most_bytes, self._encoding = stream, most_bytes, encoding.strip().lower()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in ("", "identity"):
            raise OddReply("it is compressed, although the request asks for a reply without compression")
        size = 0
        try:
            async for chunk in self._stream:
                size += len(chunk)
                if size > self._most_bytes:
                    raise OddReply(f"it is longer than {self._most_bytes >> 10:,} KiB")
                yield chunk
        except httpx2.HTTPError as error:
            raise OddReply(f"it broke off ({type(error).__name__})") from None

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Beginning(_Whole):
    """A body that ends where it cannot be read any further."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in super().__aiter__():
                yield chunk
        except OddReply:
            return
