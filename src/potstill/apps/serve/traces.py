"""Traces: one JSON line per request, with OpenTelemetry's names and no field that could hold content.

The names are those of the GenAI semantic conventions 1.38; they are still in development, so each line names its
version. Inputs can be compared within a day by an HMAC under a key that never leaves the machine and is replaced daily.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import logging
import secrets
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from potstill.apps.serve.exchange import Exchange
from potstill.components.deferral.decisions import Action, PromiseState, Reason
from potstill.core.artifacts.base import Artifact
from potstill.core.errors import StepError
from potstill.core.files import write_json

__all__ = ["Assumptions", "TraceKey", "TraceLine", "TraceWriter"]

_KEY_SECONDS = 86_400.0
_FILES = 5
_HEX = "^[0-9a-f]*$"
_CONVENTIONS = "1.38"


class Assumptions(BaseModel):
    """Hashes of all that an answer depends on, apart from the request."""

    model_config = ConfigDict(frozen=True)

    model_sha256: str = Field(pattern=_HEX)
    quantization: str
    template_sha256: str = Field(pattern=_HEX)
    runtime: str
    policy_sha256: str | None = None


class TraceLine(BaseModel):
    """One request. Texts are of fixed sets, hashes, or names from the package: none can come from a client."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    time: str
    id: str = Field(pattern="^req-[0-9a-f]{24}$")
    conventions: str = _CONVENTIONS
    operation: Literal["chat", "text_completion"] = Field(alias="gen_ai.operation.name")
    provider: Literal["potstill"] = Field("potstill", alias="gen_ai.provider.name")
    model: str = Field(alias="gen_ai.request.model")
    temperature: float | None = Field(alias="gen_ai.request.temperature")
    max_tokens: int | None = Field(alias="gen_ai.request.max_tokens")
    finish_reasons: tuple[str, ...] = Field(alias="gen_ai.response.finish_reasons")
    input_tokens: int = Field(alias="gen_ai.usage.input_tokens")
    output_tokens: int = Field(alias="gen_ai.usage.output_tokens")
    ttft: float | None = Field(alias="gen_ai.server.time_to_first_token")
    duration: float = Field(alias="gen_ai.server.request.duration")
    status: int = Field(alias="http.response.status_code")
    error: str | None = Field(alias="error.type")
    stream: bool = Field(alias="potstill.stream")
    queue_seconds: float = Field(alias="potstill.queue_seconds")
    decision: Action | None = Field(alias="potstill.decision")
    reason: Reason | None = Field(alias="potstill.reason")
    score: float | None = Field(alias="potstill.score")
    promise: PromiseState | None = Field(alias="potstill.promise")
    answered_by: Literal["package", "larger"] = Field(alias="potstill.answered_by")
    tools: int = Field(alias="potstill.tools")
    calls: int = Field(alias="potstill.calls")
    fits_request: bool = Field(alias="potstill.fits_request")
    repaired: bool = Field(alias="potstill.repaired")
    input_hmac: str = Field(alias="potstill.input_hmac", pattern=_HEX)
    key_id: str = Field(alias="potstill.key_id", pattern=_HEX)
    assumptions: Assumptions = Field(alias="potstill.assumptions")


class TraceKey(Artifact):
    """The key of the HMACs; the one before it is gone, so its HMACs cannot be compared with new ones."""

    FILE = "trace-key.json"

    id: str
    key: str
    made: float


class TraceWriter:
    """Writes traces into a folder; a file that is full is renamed, and the oldest of five is deleted.

    Args:
        folder: where traces.jsonl and the key are.
        file_bytes: size at which a file is full.
    """

    def __init__(self, folder: Path, file_bytes: int = 10_000_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._handler = RotatingFileHandler(
            folder / "traces.jsonl", maxBytes=file_bytes, backupCount=_FILES - 1, encoding="utf-8"
        )
        self._key = self._read_key()

    def close(self) -> None:
        """Close the file."""
        self._handler.close()

    def write(self, exchange: Exchange, model: str, assumptions: Assumptions) -> None:
        """Append the line of a request that has ended."""
        line = self._line(exchange, model, assumptions).model_dump_json(by_alias=True)
        self._handler.emit(logging.LogRecord("trace", logging.INFO, "", 0, line, None, None))

    def _line(self, exchange: Exchange, model: str, assumptions: Assumptions) -> TraceLine:
        now = datetime.datetime.now(datetime.UTC)
        key, decision = self._current_key(now.timestamp()), exchange.decision
        digest = hmac.new(bytes.fromhex(key.key), exchange.prompt.encode(errors="replace"), hashlib.sha256)
        return TraceLine.model_validate({
            "time": now.isoformat(timespec="milliseconds"),
            "id": exchange.id,
            "operation": "chat" if exchange.path == "chat" else "text_completion",
            "model": model,
            "temperature": exchange.temperature,
            "max_tokens": exchange.max_tokens,
            "finish_reasons": [exchange.finish_reason] if exchange.finish_reason else [],
            "input_tokens": exchange.input_tokens,
            "output_tokens": exchange.output_tokens,
            "ttft": exchange.ttft,
            "duration": round(exchange.seconds, 6),
            "status": exchange.status,
            "error": exchange.error,
            "stream": exchange.stream,
            "queue_seconds": round(exchange.queue_seconds, 6),
            "decision": decision.action if decision else None,
            "reason": decision.reason if decision else None,
            "score": decision.score if decision else None,
            "promise": decision.promise if decision else None,
            "answered_by": exchange.model,
            "tools": exchange.tools,
            "calls": exchange.calls,
            "fits_request": not exchange.invalid,
            "repaired": exchange.repaired,
            "input_hmac": digest.hexdigest(),
            "key_id": key.id,
            "assumptions": assumptions,
        })  # fmt: skip

    def _read_key(self) -> TraceKey | None:
        path = self._folder / TraceKey.FILE
        try:
            return TraceKey.read_file(path, "delete it") if path.is_file() else None
        except StepError:
            return None  # a new one is made, and older HMACs cannot be compared with

    def _current_key(self, now: float) -> TraceKey:
        if self._key is None or not 0 <= now - self._key.made < _KEY_SECONDS:
            self._key = TraceKey(id=secrets.token_hex(4), key=secrets.token_hex(32), made=now)
            path = self._folder / TraceKey.FILE
            write_json(path, self._key.to_json())
            path.chmod(0o600)
        return self._key
