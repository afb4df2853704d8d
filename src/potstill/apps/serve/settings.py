"""What a server is started with: its limits, its addresses and its keys."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from potstill.core.errors import UsageError
from potstill.core.files import read_text

__all__ = ["LOOPBACK", "Larger", "Limits", "Settings", "read_keys"]

LOOPBACK = ("127.0.0.1", "localhost")
"""Addresses that only programs on this machine can reach."""
_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    body_bytes        size of a request's body, in bytes
    body_seconds      time in which the body must arrive
    max_tokens        tokens of an answer; also the number where the request names none
    request_seconds   time from the whole body to the whole answer, waiting included
    waiting           requests that may wait for a slot; the next one is answered 429
    """

    body_bytes: int = 1 << 20
    body_seconds: float = 10.0
    max_tokens: int = 1024
    request_seconds: float = 120.0
    waiting: int = 16


@dataclass(frozen=True)
class Larger:
    """The larger model: its endpoint's address with /v1, its name there, and the endpoint's API key."""

    url: str
    model: str
    key: str


@dataclass(frozen=True)
class Settings:
    """How a package is served.

    package             the package's folder
    context             tokens of prompt and answer of one request; None: the context of the package's recipe
    parallel            requests that are decoded at the same time
    threads             processor threads of llama.cpp
    keys                API keys; without any, every request that reaches the server is answered
    policy              the policy's file; None: every answer that fits its request is given
    larger              what answers are escalated to
    audit_share         share of answered requests that the larger model is asked too
    withhold_on_drift   no answer is given after a drift alarm
    state               folder of traces and counts; None: see `state_folder`
    grace               seconds that requests have to end when the server is stopped
    """

    package: Path
    host: str = "127.0.0.1"
    port: int = 8080
    context: int | None = None
    parallel: int = 2
    threads: int = 2
    keys: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    policy: Path | None = None
    larger: Larger | None = None
    audit_share: float = 0.02
    withhold_on_drift: bool = False
    state: Path | None = None
    grace: float = 20.0

    def state_folder(self, name: str, port: int) -> Path:
        """Folder of traces and counts. Its default has the port in its name, so that two servers never share one."""
        root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return self.state or Path(root) / "potstill" / "serve" / f"{name}-{port}"

    def require_safe(self) -> None:
        """Refuse to serve other machines without a key.

        Raises:
            UsageError: the address can be reached from other machines, and there is no key.
        """
        if self.host not in LOOPBACK and not self.keys:
            raise UsageError(
                f"--host {self.host} can be reached from other machines, and no API key is set. Put keys into the "
                "environment variable POTSTILL_API_KEYS or into a file named by --keys, or serve on 127.0.0.1."
            )


def read_keys(environment: str, file: Path | None) -> frozenset[str]:
    """The API keys of an environment variable's value, separated by commas, and of a file with one key per line.

    Raises:
        UsageError: a key is too short to be safe, or the file cannot be read or has no key.
    """
    given = environment.split(",")
    if file is not None:
        lines = [line.strip() for line in read_text(file, advice="Write one API key per line.").split("\n")]
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise UsageError(f"{file}: no API key. Write one API key per line.")
        given += lines
    keys = frozenset(key.strip() for key in given if key.strip())
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise UsageError(
            f"An API key has fewer than {_SHORTEST_KEY} characters, which can be guessed. Use a longer one."
        )
    return keys
