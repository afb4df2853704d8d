"""Start the server, and stop it on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn

from potstill.apps.serve.app import make_app
from potstill.apps.serve.service import Service
from potstill.apps.serve.settings import Settings
from potstill.core.errors import StepError

__all__ = ["serve"]

_CONNECTIONS = 512
_KEEP_ALIVE_SECONDS = 30


def serve(settings: Settings, ready: Callable[[Service, str], None], note: Callable[[str], None]) -> None:
    """Serve a package until SIGTERM or Ctrl-C; requests that are being answered may end within the grace.

    Args:
        settings: how to serve it.
        ready: is called with the service and its address as soon as requests are answered.
        note: is called with a sentence when something happens that an operator should know.

    Raises:
        PotstillError: the package, the policy or a setting is not valid, the address is taken, or llama.cpp cannot load
            the file.
    """
    settings.require_safe()
    with _listen(settings.host, settings.port) as listener:
        asyncio.run(_serve(settings, listener, ready, note))


async def _serve(
    settings: Settings, listener: socket.socket, ready: Callable[[Service, str], None], note: Callable[[str], None]
) -> None:
    host, port = listener.getsockname()[:2]
    service = await Service.open(settings, port, note)
    config = uvicorn.Config(
        make_app(service),
        access_log=False,
        log_config=None,
        lifespan="on",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.grace),
        server_header=False,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal once more after a clean end
        signal.signal(number, lambda *_: None)
    ready(service, f"http://{host}:{port}")
    await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_CONNECTIONS)
    except OSError as error:
        # the message of `create_server` names the address a second time
        reason = str(error.strerror).partition(" (while ")[0]
        raise StepError(
            f"{host}:{port}: cannot listen there ({reason}). Choose another --port or --host, or stop the "
            "program that uses it."
        ) from None
