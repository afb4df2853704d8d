"""Answer rows with a GGUF file through the chat endpoint of llama.cpp's server."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.runtimes import Answer, FinishReason, OnAnswers, Sampling
from potstill.components.runtimes.chat_reply import ChatReply, cannot_read
from potstill.components.runtimes.gguf import GGUFServer, RefusedRequest
from potstill.core.errors import ParityError, StepError
from potstill.core.progress import progress_bar
from potstill.core.records import Row, first_problem

__all__ = ["GGUFRuntime", "answer_in_threads", "ask_chat", "chat_request", "row_seed"]

Array = NDArray[np.float32]


class GGUFRuntime:
    """Answers rows with a served GGUF as its users do: by POST /v1/chat/completions, one request per row.

    The endpoint renders the prompt from messages and tools, constrains calls to the tools' schemas, and reads the calls
    of the answer. The checkpoint's tokenizer decodes the raw text. The prompts must be those of training: compare their
    token ids first (`parity.prompts.compare_template`). The endpoint itself returns only their number of tokens.

    Args:
        server: a running server.
        chat: the checkpoint's tokenizer and template.
        context: maximum length of prompt and answer together, in tokens.
        parallel: number of requests at the same time; the server's slots.
    """

    def __init__(self, server: GGUFServer, chat: ChatFormat, context: int, parallel: int = 1) -> None:
        self.server = server
        self.chat = chat
        self.context = min(context, server.slot_context)
        self.parallel = parallel

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`.

        Greedy answers can differ between two calls where two tokens are almost equally likely, because the last bits of
        llama.cpp's results depend on what else it computes at the same time.

        Raises:
            ParityError: the endpoint makes another prompt from a row than the checkpoint's template does.
        """
        return answer_in_threads(lambda row: self._answer(row, sampling), rows, self.parallel, label, on_answers)

    def _answer(self, row: Row, sampling: Sampling) -> Answer:
        prompt = self.chat.prompt_ids(row)
        room = min(sampling.max_new_tokens, self.context - len(prompt))
        if room <= 0:
            return Answer("", "length", len(prompt), 0, 0.0)
        begun = time.monotonic()
        reply = ask_chat(self.server, self._request(row, sampling, room))
        if isinstance(reply, ParsedAnswer):
            return Answer("", "stop", len(prompt), 0, time.monotonic() - begun, parsed=reply)
        seconds = time.monotonic() - begun
        self._require_prompt(row, len(prompt), reply.usage.prompt_tokens)
        ids = list(reply.verbose.tokens)
        end = next((i for i, token in enumerate(ids) if token in self.chat.stop_ids), None)
        if end is None and reply.verbose.stop_type == "eos":
            end = len(ids) - 1  # llama.cpp also stops at tokens that only it treats as an end
        ids = ids[:end]
        finish: FinishReason = "length" if reply.cut_off else "stop"
        text = self.chat.decode(ids, after=prompt)
        return Answer(text, finish, len(prompt), len(ids), seconds, parsed=reply.parsed)

    def _request(self, row: Row, sampling: Sampling, room: int) -> dict[str, Any]:
        return chat_request(row, self.chat) | {
            "max_tokens": room,
            "samplers": ["temperature", "top_p"],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": row_seed(row, sampling.seed),
            "cache_prompt": True,
        }

    def _require_prompt(self, row: Row, trained: int, served: int) -> None:
        """Raise ParityError unless the prompt that was answered has as many tokens as training's."""
        if served != trained:
            raise ParityError(
                f"{self.server.model.name}: llama.cpp's chat endpoint gives the model another prompt than the student "
                f"was trained on. For {row.name} it has {served} tokens, and {trained} in "
                "training. The chat template in the file is not the one that was trained, or llama.cpp runs it "
                "differently. Export again; if the difference remains, put a simpler template into chat.template and "
                "train with it."
            )

    def log_probs(self, ids: Sequence[int], first: int) -> Array:
        """See `HFRuntime.log_probs`: (len(ids) - first, V) over the tokenizer's V ids, without the model's padding."""
        log_probs_SV = self.server.log_probs(ids, first)[:, : self.chat.vocab_size]
        total_S1 = np.log(np.exp(log_probs_SV.astype(np.float64)).sum(axis=1, keepdims=True))
        normalised_SV: Array = (log_probs_SV - total_S1).astype(np.float32)
        return normalised_SV

    def log_probs_at(self, ids: Sequence[int], positions: Sequence[int]) -> Array:
        """See `HFRuntime.log_probs_at`. Each position is a request, so the others are not asked for."""
        return np.concatenate([self.log_probs(ids[: position + 1], position) for position in positions])


def answer_in_threads(
    ask: Callable[[Row], Answer], rows: Sequence[Row], parallel: int, label: str, on_answers: OnAnswers | None
) -> list[Answer]:
    """Answers in the order of the rows, `parallel` requests at the same time; see `Runtime.answer`."""
    answers: dict[int, Answer] = {}
    with progress_bar(label, len(rows)) as ticker, ThreadPoolExecutor(parallel) as pool:
        futures = {pool.submit(ask, row): index for index, row in enumerate(rows)}
        try:
            for future in as_completed(futures):
                index = futures[future]
                answers[index] = future.result()
                if on_answers:
                    on_answers([(index, answers[index])])
                ticker.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [answers[index] for index in range(len(rows))]


def ask_chat(server: GGUFServer, request: dict[str, Any]) -> ChatReply | ParsedAnswer:
    """The reply of the chat endpoint; a malformed answer where the endpoint cannot read what the model wrote.

    Raises:
        StepError: the server refuses the request, has gone, or leaves out the prompt and the tokens.
    """
    try:
        reply = server.post("/v1/chat/completions", request | {"verbose": True, "return_tokens": True})
        return ChatReply.model_validate(reply)
    except RefusedRequest as error:
        if not cannot_read(error.status, error.reason):
            raise
        return ParsedAnswer((), "", error.reason)
    except ValidationError as error:
        raise StepError(
            f"llama.cpp's chat endpoint does not return what is needed to compare its prompts and answers "
            f"({first_problem(error)}). This version of xllamacpp is not supported: install one that potstill was "
            "tested with."
        ) from None


def chat_request(row: Row, chat: ChatFormat) -> dict[str, Any]:
    """What a row asks of a chat endpoint: messages, tools, and that more than one call may be made."""
    request: dict[str, Any] = {"messages": [m.for_api() for m in chat.with_ids(row)]}
    if row.tools:
        request |= {"tools": list(row.tools), "parallel_tool_calls": True}
    return request


def row_seed(row: Row, seed: int) -> int:
    """A seed of 32 bits that is different for each row."""
    return int(hashlib.sha256(f"{seed}\0{row.row_id}".encode()).hexdigest()[:8], 16)
