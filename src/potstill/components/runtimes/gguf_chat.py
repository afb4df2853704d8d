"""Answer rows with a GGUF file alone, as its users do: without a checkpoint or a tokenizer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.runtimes import Answer, FinishReason, OnAnswers, OnAsk, Sampling
from potstill.components.runtimes.gguf import GGUFServer, RefusedRequest
from potstill.components.runtimes.gguf_runtime import answer_in_threads, ask_chat, row_seed
from potstill.components.runtimes.journaled import AskedTogether
from potstill.components.runtimes.readings import shown
from potstill.core.records import Row, with_call_ids

__all__ = ["GGUFChat"]

_TOO_LONG = "exceed"  # llama.cpp's word where a prompt does not fit the context


class GGUFChat:
    """Answers rows by POST /v1/chat/completions of llama.cpp's server, one request per row.

    Args:
        server: a running server.
        parallel: number of requests at the same time; the server's slots.
    """

    def __init__(self, server: GGUFServer, parallel: int = 1) -> None:
        self.server = server
        self.parallel = parallel

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """See `Teacher`: each row on its own."""
        return [AskedTogether([place], _request(row, sampling)) for place, row in enumerate(rows)]

    def answer(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        label: str,
        on_answers: OnAnswers | None = None,
        on_ask: OnAsk | None = None,
    ) -> list[Answer]:
        """See `Runtime` and `Teacher`. A prompt that does not fit the context has an empty answer that is cut off."""
        if on_ask:
            on_ask(list(range(len(rows))))
        return answer_in_threads(lambda row: self._ask(row, sampling), rows, self.parallel, label, on_answers)

    def _ask(self, row: Row, sampling: Sampling) -> Answer:
        begun = time.monotonic()
        try:
            reply = ask_chat(self.server, _request(row, sampling))
        except RefusedRequest as error:
            if error.status != 400 or _TOO_LONG not in error.reason:
                raise
            return Answer("", "length", 0, 0, 0.0, detail="the prompt does not fit the context")
        seconds = time.monotonic() - begun
        if isinstance(reply, ParsedAnswer):
            return Answer(shown(reply), "stop", 0, 0, seconds, parsed=reply)
        finish: FinishReason = "length" if reply.cut_off else "stop"
        used, made = reply.usage.prompt_tokens, len(reply.verbose.tokens)
        return Answer(shown(reply.parsed), finish, used, made, seconds, parsed=reply.parsed)


def _request(row: Row, sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messages": [message.for_api() for message in with_call_ids(row.messages)],
        "max_tokens": sampling.max_new_tokens,
        "samplers": ["temperature", "top_p"],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": row_seed(row, sampling.seed),
        "cache_prompt": True,
    }
    if row.tools:
        request |= {"tools": list(row.tools), "parallel_tool_calls": True}
    return request
