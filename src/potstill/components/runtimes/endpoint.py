"""Run a model behind an OpenAI-compatible endpoint, such as OpenAI, Ollama, llama.cpp or vLLM."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from potstill.components.runtimes import Answer, OnAnswers, Sampling
from potstill.components.runtimes.answer_store import AskedTogether
from potstill.components.runtimes.endpoint_errors import EndpointErrors, RefusedRow, is_exhausted
from potstill.components.runtimes.endpoint_reply import Choice, OddReply, Reply, finish_reason, hermes_text, read_reply
from potstill.components.runtimes.log_probs import pack_tokens, read_tokens
from potstill.core.errors import TeacherError
from potstill.core.progress import Ticker, progress_bar
from potstill.core.records import Row, with_call_ids

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["EndpointRuntime", "request_body"]

_TIMEOUT_SECONDS = 1200.0
"""Time for one row, with all tries: a slow machine takes minutes for a long answer."""
_MAX_RETRIES = 6
"""Tries after connection errors, 408, 409, 429 and 5xx, with pauses that grow to 8 s or are as long as the endpoint
asks for: 23 s in all."""
_BUSY = (429, 503, 529)
"""Statuses of a limit and of an overloaded server."""
_ROUNDS = 4
"""Rounds of such tries while the endpoint is busy, so that a limit per minute is waited out; and tries of an odd
reply."""
_PAUSE_SECONDS = 5.0
"""Pause after the first round. It doubles with each."""
_MOST_BYTES = 64 << 20
"""Size of the longest reply that is read."""


class EndpointRuntime:
    """Answers rows by POST /chat/completions.

    Args:
        base_url: the address, including /v1.
        model: the endpoint's name for the model.
        api_key_env: environment variable that holds the key; an endpoint on this machine needs none.
        max_concurrency: maximum number of requests in flight.
        max_retries: number of retries of a request that may still succeed.
        top_logprobs: number of log-probabilities to request at each token of an answer; None: do not request any.
        timeout: seconds after which a row without a whole answer ends the run.

    Raises:
        TeacherError: the variable is not set, and the endpoint is not on this machine.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        max_concurrency: int,
        *,
        max_retries: int = _MAX_RETRIES,
        top_logprobs: int | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.max_concurrency = max_concurrency
        self.max_retries = max_retries
        self.top_logprobs = top_logprobs
        self.timeout = timeout
        self._errors = EndpointErrors(base_url, model, api_key_env, top_logprobs, timeout)
        self._gave_logprobs = False
        host = urlsplit(base_url).hostname or ""
        key = os.environ.get(api_key_env)
        if not key and not _is_local(host):
            raise TeacherError(
                f"{base_url}: the environment variable {api_key_env} is not set, so there is no key for this endpoint. "
                "Set it, or name another in teacher.api_key_env; if the endpoint wants no key, set it to any text."
            )
        self._key = key or "none"

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """See `Teacher`: each row on its own."""
        return [AskedTogether([place], self.request(row, sampling)) for place, row in enumerate(rows)]

    def request(self, row: Row, sampling: Sampling) -> dict[str, Any]:
        """The body of the request for a row."""
        return request_body(self.base_url, self.model, row, sampling, self.top_logprobs)

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`. Tool calls come back as text in Hermes markup, so that one parser judges every runtime.

        `on_answers` is called with each answer as it arrives, also with those of rows that the endpoint refuses; it may
        raise an error to end the run. When a request fails for a reason that concerns all rows, no further request is
        sent; requests in flight are waited for, because they are paid for.

        Raises:
            TeacherError: the endpoint cannot be reached; rejects the key, the model or a parameter; redirects; is over
                its limit; or does not return the requested log-probabilities with its first answer in words.
        """
        with progress_bar(label, len(rows)) as ticker:
            answers = asyncio.run(self._answer_all(rows, sampling, ticker, on_answers))
        return [answers[index] for index in range(len(rows))]

    async def _answer_all(
        self, rows: Sequence[Row], sampling: Sampling, ticker: Ticker, on_answers: OnAnswers | None
    ) -> dict[int, Answer]:
        from openai import AsyncOpenAI

        from potstill.components.runtimes.endpoint_limits import limited_client

        answers: dict[int, Answer] = {}
        errors: list[Exception] = []
        waiting = iter(enumerate(rows))

        async def work(client: AsyncOpenAI) -> None:
            for index, row in waiting:
                try:
                    answers[index] = await self._ask(client, row, sampling)
                    if on_answers:
                        on_answers([(index, answers[index])])
                    ticker.advance()
                except Exception as error:  # raised below, once the other workers have the answers that they paid for
                    errors.append(error)
                if errors:
                    return

        async with AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key,
            timeout=self.timeout,
            max_retries=self.max_retries,
            http_client=limited_client(_MOST_BYTES),
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.max_concurrency, len(rows)))))
        if errors:
            raise errors[0]
        return answers

    async def _ask(self, client: AsyncOpenAI, row: Row, sampling: Sampling) -> Answer:
        """The answer to one row; a busy endpoint is waited for, and odd replies are tried again."""
        from openai import APIStatusError, OpenAIError
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

        def may_pass(error: BaseException) -> bool:
            if isinstance(error, APIStatusError):
                return error.status_code in _BUSY and not is_exhausted(error)
            return isinstance(error, OddReply)

        rounds = AsyncRetrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(_ROUNDS),
            wait=wait_exponential(multiplier=_PAUSE_SECONDS),
            reraise=True,
        )
        begun, request = time.monotonic(), self.request(row, sampling)
        try:
            async with asyncio.timeout(self.timeout):
                answer: Answer = await rounds(self._request_once, client, request)
                return answer
        except TimeoutError:
            raise self._errors.timed_out() from None
        except OddReply as error:
            return _refused(f"its reply is not one of OpenAI's chat completions: {error}", begun)
        except OpenAIError as error:
            try:
                self._errors.raise_for(error)
            except RefusedRow as refused:
                return _refused(str(refused), begun)
            raise

    async def _request_once(self, client: AsyncOpenAI, request: dict[str, Any]) -> Answer:
        begun = time.monotonic()
        async with client.chat.completions.with_streaming_response.create(**request) as response:
            body = await response.read()
        return self._read(read_reply(body), time.monotonic() - begun)

    def _read(self, reply: Reply, seconds: float) -> Answer:
        choice = reply.choices[0]
        ended = finish_reason(choice.finish_reason)
        return Answer(
            text=hermes_text(choice.message, thinking=not self.top_logprobs),
            finish_reason=ended,
            prompt_tokens=reply.tokens("prompt_tokens"),
            completion_tokens=reply.tokens("completion_tokens"),
            seconds=seconds,
            tokens=self._tokens(choice) if self.top_logprobs else None,
            detail=f"finish_reason {choice.finish_reason!r}"[:80] if ended == "unfinished" else None,
        )

    def _tokens(self, choice: Choice) -> str | None:
        """Packed log-probabilities of an answer; None where the endpoint gives none, as some do for tool calls."""
        try:
            tokens = read_tokens(choice)
        except ValueError as error:
            raise self._errors.bad_logprobs(str(error)) from None
        if tokens:
            self._gave_logprobs = True
            return pack_tokens(tokens)
        if self._gave_logprobs or choice.message.tool_calls or not hermes_text(choice.message).strip():
            return None
        raise self._errors.without_logprobs("an answer came without them")


def request_body(
    base_url: str, model: str, row: Row, sampling: Sampling, top_logprobs: int | None = None
) -> dict[str, Any]:
    """What an endpoint is sent for a row; the arguments are those of `EndpointRuntime`."""
    # newer models of OpenAI reject max_tokens, and other servers know only max_tokens
    limit = "max_completion_tokens" if urlsplit(base_url).hostname == "api.openai.com" else "max_tokens"
    request: dict[str, Any] = {
        "model": model,
        "messages": [message.for_api() for message in with_call_ids(row.messages)],
        "temperature": sampling.temperature,
        limit: sampling.max_new_tokens,
    }
    if top_logprobs:
        request |= {"logprobs": True, "top_logprobs": top_logprobs}
    if row.tools:
        request["tools"] = list(row.tools)
    if sampling.temperature > 0:
        request |= {"top_p": sampling.top_p, "seed": sampling.seed}
    return request


def _refused(detail: str, begun: float) -> Answer:
    return Answer("", "refused", 0, 0, time.monotonic() - begun, detail=detail)


def _is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
