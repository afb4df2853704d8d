"""What is known of one request while it is answered, and what is kept of it afterwards: no word of its content."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

from potstill.apps.serve.errors import ApiError
from potstill.components.deferral.decisions import Decision

__all__ = ["Exchange", "Path"]

Path = Literal["chat", "completions"]


@dataclass
class Exchange:
    """One request from its first byte to the end of its answer.

    prompt       text of the last message, for the HMAC and the script; it is never written
    status       HTTP status; 499 for a client that has gone
    error        the error's code; None for an answer
    ttft         seconds until the first bytes of the answer were sent
    """

    path: Path
    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    begun: float = field(default_factory=time.monotonic)
    prompt: str = ""
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    status: int = 200
    error: str | None = None
    decision: Decision | None = None
    model: Literal["package", "larger"] = "package"
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    tools: int = 0
    calls: int = 0
    invalid: bool = False
    repaired: bool = False
    queue_seconds: float = 0.0
    ttft: float | None = None
    seconds: float = 0.0

    def failed(self, error: ApiError) -> None:
        """Note an error."""
        self.status, self.error = error.status, error.code

    def sent(self) -> None:
        """Note that bytes of the answer are sent."""
        if self.ttft is None:
            self.ttft = time.monotonic() - self.begun

    def headers(self) -> dict[str, str]:
        """Headers that say what was decided."""
        out = {"X-Request-Id": self.id}
        if self.decision is not None:
            out |= {"X-Potstill-Decision": self.decision.action, "X-Potstill-Reason": self.decision.reason}
            out["X-Potstill-Promise"] = self.decision.promise
            if self.decision.score is not None:
                out["X-Potstill-Score"] = f"{self.decision.score:.6g}"
        return out
