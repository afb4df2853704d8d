"""The server's paths, and who may use them."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from pydantic_core import to_jsonable_python
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from potstill.apps.serve.errors import ApiError
from potstill.apps.serve.handlers import chat, completions
from potstill.apps.serve.service import Service
from potstill.apps.serve.settings import LOOPBACK
from potstill.apps.serve.status import status_of

__all__ = ["make_app"]

_OPEN = frozenset({"/", "/healthz", "/readyz"})
"""Paths that need no key: they say nothing but whether the server runs; the page itself holds no data."""


def make_app(service: Service) -> Starlette:
    """The application that serves OpenAI's API, and what an operator needs."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    middleware = [Middleware(KeyGate, keys=service.settings.keys)]
    if service.settings.host in LOOPBACK:
        # a web page whose name resolves to this machine must not reach the server through a browser
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK), www_redirect=False))
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/", page),
            Route("/status", status),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _http_error, ApiError: _api_error, Exception: _internal_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


class KeyGate:
    """Middleware that answers 401 where a key is needed and the request has none of the server's.

    Args:
        app: what is behind it.
        keys: the server's keys; without any, all requests pass.
    """

    def __init__(self, app: ASGIApp, keys: frozenset[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not self._keys or scope["path"] in _OPEN or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "authentication_error",
            "This server needs an API key: send the header Authorization: Bearer KEY.",
            code="invalid_api_key",
        )
        response = JSONResponse(error.body(), error.status, {"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        # every key is compared, so that the time says nothing about which one is near
        return scheme.lower() == b"bearer" and sum(hmac.compare_digest(key.strip(), each) for each in self._keys) > 0


async def models(request: Request) -> Response:
    """GET /v1/models."""
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_model(service)]})


async def model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    service: Service = request.app.state.service
    if request.path_params["name"] != service.package.name:
        raise ApiError(404, "invalid_request_error", "This model is not served here.", code="model_not_found")
    return JSONResponse(_model(service))


def _model(service: Service) -> dict[str, object]:
    return {"id": service.package.name, "object": "model", "created": int(service.begun), "owned_by": "potstill"}


async def page(request: Request) -> Response:
    """GET /: the status page. It holds no data, and nothing in it comes from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    text = (files(__package__) / "page.html").read_text(encoding="utf-8").replace("NONCE", nonce)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return HTMLResponse(text, headers=headers)


async def status(request: Request) -> Response:
    """GET /status: what the page shows."""
    return JSONResponse(to_jsonable_python(status_of(request.app.state.service)))


async def healthz(request: Request) -> Response:
    """GET /healthz: the process runs."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """GET /readyz: requests are answered; else status 503."""
    service: Service = request.app.state.service
    return PlainTextResponse("ready\n" if service.ready else "not ready\n", 200 if service.ready else 503)


async def metrics(request: Request) -> Response:
    """GET /metrics, for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# ---- errors outside of the two paths ----


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = ApiError(error.status_code, "invalid_request_error", str(error.detail), code="http")
    return JSONResponse(found.body(), error.status_code, dict(error.headers or {}))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers())


async def _internal_error(request: Request, error: Exception) -> Response:
    found = ApiError(500, "server_error", "The server has a fault, which its log describes.", code="internal")
    return JSONResponse(found.body(), 500)
