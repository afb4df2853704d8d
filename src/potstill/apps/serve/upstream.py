"""Asks llama.cpp's server in the child process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from potstill.apps.serve.engine import Address, Engine
from potstill.apps.serve.errors import ApiError, bad_request, unavailable
from potstill.components.runtimes.chat_reply import cannot_read

__all__ = ["ChildDied", "Unreadable", "Upstream"]


class ChildDied(Exception):
    """The child ended, or closed the connection, before its answer was whole."""


class Unreadable(Exception):
    """llama.cpp cannot read the model's answer, because it is not in the model's own format of tool calls."""


class Upstream:
    """A client of the engine's child; a request that a dead child lost is sent once more, to the next one.

    Args:
        engine: the engine, which starts the child again.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._client = httpx.AsyncClient(
            timeout=None,  # the server's own limit holds for the whole request
            trust_env=False,
            # the child closes a connection that was idle, and a request at that moment fails
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            ApiError: llama.cpp refuses the request, or the child died twice.
            Unreadable: the answer is not in the format of the model's tool calls.
        """
        address = await self.engine.ready()
        try:
            return await self._post(address, path, body)
        except ChildDied:
            address = await self.engine.ready(other_than=address)
        try:
            return await self._post(address, path, body)
        except ChildDied:
            raise _lost() from None

    async def _post(self, address: Address, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.post(address.url + path, json=body, headers=_headers(address))
        except httpx.HTTPError:
            raise ChildDied from None
        if response.is_error:
            raise _refusal(response)
        value: dict[str, Any] = response.json()
        return value

    @asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a streamed reply; leaving the block stops decoding.

        Raises:
            ApiError: llama.cpp refuses the request, or the child died twice before its first byte.
            ChildDied: from the iterator: the child died in the middle of its answer.
        """
        address = await self.engine.ready()
        try:
            response = await self._open(address, path, body)
        except ChildDied:
            try:
                response = await self._open(await self.engine.ready(other_than=address), path, body)
            except ChildDied:
                raise _lost() from None
        try:
            yield _chunks(response)
        finally:
            await response.aclose()

    async def _open(self, address: Address, path: str, body: dict[str, Any]) -> httpx.Response:
        request = self._client.build_request("POST", address.url + path, json=body, headers=_headers(address))
        try:
            response = await self._client.send(request, stream=True)
            if response.is_error:
                await response.aread()
                await response.aclose()
                raise _refusal(response)
        except httpx.HTTPError:
            raise ChildDied from None
        return response


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.HTTPError:
        raise ChildDied from None


def _headers(address: Address) -> dict[str, str]:
    return {"Authorization": f"Bearer {address.key}"}


def _lost() -> ApiError:
    return unavailable("The model's process ended twice while it answered this request. Send it again.", "engine_died")


def _refusal(response: httpx.Response) -> ApiError | Unreadable:
    """The error of a reply that is one."""
    try:
        error = response.json()["error"]
        reason, kind = str(error.get("message", "")), str(error.get("type", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        reason, kind, error = "", "", {}
    if kind == "exceed_context_size_error":
        return bad_request(
            f"The prompt has {error.get('n_prompt_tokens')} tokens, and the context of this server has "
            f"{error.get('n_ctx')}, the answer included. Nothing was cut. Send a shorter prompt, or start the server "
            "with a larger --context.",
            code="context_length_exceeded",
            param="messages",
        )
    if cannot_read(response.status_code, reason):
        return Unreadable()
    if response.status_code < 500:
        # llama.cpp's own words quote schemas and templates, and no prompt
        return bad_request(f"llama.cpp refuses the request: {' '.join(reason.split())[:300]}", code="refused")
    return ApiError(500, "server_error", "llama.cpp could not answer this request.", code="engine_error")
