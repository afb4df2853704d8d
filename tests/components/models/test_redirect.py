"""A hub that redirects to another host: the token must not go there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from potstill.components.models.folder import resolve_model
from potstill.components.models.source import load_spec
from potstill.core.errors import UsageError

Seen = list[str | None]


@contextmanager
def server(host: str, target: str | None) -> Iterator[tuple[str, Seen]]:
    """A server that redirects to `target` or knows nothing; its address, and the Authorization of each request."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(302 if target else 404)
            if target:
                self.send_header("Location", f"{target}/elsewhere.json")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = HTTPServer((host, 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{'localhost' if target is None else host}:{http.server_port}", seen
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("load", [load_spec, resolve_model])
def test_token_stays_with_the_hub(
    load: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    with server("127.0.0.1", None) as (other, others), server("127.0.0.1", other) as (hub, asked):
        monkeypatch.setattr(constants, "ENDPOINT", hub)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        with pytest.raises(UsageError):
            load("org/model")
    assert asked
    assert others
    assert "Bearer hf_secret" not in others
