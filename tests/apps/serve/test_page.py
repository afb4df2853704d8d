"""The status page: self-contained, and told by headless Chromium to work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from served import NAME, Server


def test_page_holds_no_data_and_loads_nothing_from_elsewhere(server: Server) -> None:
    reply = httpx.get(server.url.removesuffix("/v1") + "/")
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert re.findall(r"(?:src|href)=|https?://|innerHTML|NONCE", reply.text) == []
    nonce = re.search(r'nonce="([\w-]+)"', reply.text)
    assert nonce is not None and f"'nonce-{nonce[1]}'" in reply.headers["content-security-policy"]


def test_status_says_what_is_served(server: Server) -> None:
    status = httpx.get(server.url.removesuffix("/v1") + "/status").json()
    lights = {light["name"]: light["state"] for light in status["lights"]}
    assert lights == {"package": "green", "model": "green", "queue": "green", "promise": "yellow"}
    assert status["name"] == NAME and status["policy"] is None and len(status["bound"]["model_sha256"]) == 64


def test_playground_shows_answer_and_decision(server: Server, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    url = server.url.removesuffix("/v1") + "/?ask=light+on+in+the+kitchen"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=9000",
    ]
    done = subprocess.run([browser, *options, "--dump-dom", url], capture_output=True, text=True, timeout=300)
    assert 'set_light({"room": "kitchen", "state": "on"})' in done.stdout
    assert re.search(r'class="badge green">answer<', done.stdout)
    assert "mean probability of a token" in done.stdout and f'<h1 id="name">{NAME}</h1>' in done.stdout
