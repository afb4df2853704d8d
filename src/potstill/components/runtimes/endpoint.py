"""Run a model behind an OpenAI-compatible endpoint, such as OpenAI, Ollama, llama.cpp or vLLM."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from potstill.components.runtimes import Answer, OnAnswers, OnAsk, Sampling
from potstill.components.runtimes.adaptive_limit import AdaptiveLimit
from potstill.components.runtimes.endpoint_errors import EndpointErrors, RefusedRow
from potstill.components.runtimes.endpoint_reply import Choice, OddReply, Reply, finish_reason, hermes_text, read_reply
from potstill.components.runtimes.endpoint_retries import is_throttled, retry_after, tries_of
from potstill.components.runtimes.journaled import AskedTogether
from potstill.components.runtimes.log_probs import pack_tokens, read_tokens
from potstill.core.errors import UsageError
from potstill.core.hashing import fingerprint
from potstill.core.progress import Ticker, progress_bar
from potstill.core.records import Row, with_call_ids

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import RetryCallState

__all__ = ["EndpointRuntime", "request_body"]

_TIMEOUT_SECONDS = 1200.0
"""Time for one try of a request: a slow machine takes minutes for a long answer."""
_CONNECT_SECONDS = 20.0
_PAUSE_SECONDS = 0.5
"""Pause after the first try. It doubles with each, unless the endpoint says how long to wait."""
_LONGEST_PAUSE = 60.0
_MOST_BYTES = 64 << 20
"""Size of the longest reply that is read."""


class EndpointRuntime:
    """Answers rows by POST /chat/completions.

    Args:
        base_url: the address, including /v1.
        model: the endpoint's name for the model.
        api_key_env: environment variable that holds the key; an endpoint on this machine needs none.
        max_concurrency: maximum number of requests in flight.
        most_tries: maximum number of tries of a request that may still succeed; None: as many as its error is worth.
        top_logprobs: number of log-probabilities to request at each token of an answer; None: do not request any.
        timeout: seconds after which a try without a whole answer is given up.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        max_concurrency: int,
        *,
        most_tries: int | None = None,
        top_logprobs: int | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.api_key_env = api_key_env
        self.max_concurrency = max_concurrency
        self.most_tries = most_tries
        self.top_logprobs = top_logprobs
        self.timeout = timeout
        self._errors = EndpointErrors(base_url, model, api_key_env, top_logprobs, timeout)
        self._gave_logprobs = False

    def require_key(self) -> str:
        """The key for the endpoint; an endpoint on this machine needs none.

        Raises:
            UsageError: the variable is not set, and the endpoint is not on this machine.
        """
        key = os.environ.get(self.api_key_env)
        if not key and not _is_local(urlsplit(self.base_url).hostname or ""):
            raise UsageError(
                f"{self.base_url}: the environment variable {self.api_key_env} is not set, so there is no key for this "
                "endpoint. Set it, or name another in teacher.api_key_env; if the endpoint wants no key, set it to any "
                "text."
            )
        return key or "none"

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """See `Teacher`: each row on its own."""
        return [AskedTogether([place], self.request(row, sampling)) for place, row in enumerate(rows)]

    def request(self, row: Row, sampling: Sampling) -> dict[str, Any]:
        """The body of the request for a row."""
        return request_body(self.base_url, self.model, row, sampling, self.top_logprobs)

    def answer(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        label: str,
        on_answers: OnAnswers | None = None,
        on_ask: OnAsk | None = None,
    ) -> list[Answer]:
        """See `Runtime` and `Teacher`. Tool calls come back as text in Hermes markup, which one parser reads.

        `on_answers` is called with each answer as it arrives, also with those of rows that the endpoint refuses. Both
        functions may raise an error to end the run. When a request fails for a reason that concerns all rows, no
        further request is sent; requests in flight are waited for, because they are paid for.

        Raises:
            TeacherError: the endpoint rejects the key, the model or a parameter; redirects; is over its limit; is lost;
                or does not return the requested log-probabilities with its first answer in words.
            UsageError: there is no key, or the endpoint cannot be reached at all.
        """
        key = self.require_key()
        with progress_bar(label, len(rows)) as ticker:
            answers = asyncio.run(self._answer_all(rows, sampling, key, ticker, on_answers, on_ask))
        return [answers[index] for index in range(len(rows))]

    async def _answer_all(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        key: str,
        ticker: Ticker,
        on_answers: OnAnswers | None,
        on_ask: OnAsk | None,
    ) -> dict[int, Answer]:
        import httpx2
        from openai import AsyncOpenAI

        from potstill.components.runtimes.endpoint_limits import limited_client

        answers: dict[int, Answer] = {}
        errors: list[Exception] = []
        waiting = iter(enumerate(rows))
        limit = AdaptiveLimit(self.max_concurrency)

        def before(index: int, attempt: int) -> None:
            if errors:
                raise _Stopped
            if on_ask and attempt == 1:
                on_ask([index])

        async def work(client: AsyncOpenAI) -> None:
            for index, row in waiting:
                try:
                    answers[index] = await self._ask(client, row, sampling, limit, partial(before, index))
                    if on_answers:
                        on_answers([(index, answers[index])])
                    lowered = int(limit.limit) < self.max_concurrency
                    ticker.advance(1, **({"concurrency": int(limit.limit)} if lowered else {}))
                except Exception as error:  # raised below, once the other workers have the answers that they paid for
                    errors.append(error)
                if errors:
                    return

        async with AsyncOpenAI(
            base_url=self.base_url,
            api_key=key,
            timeout=httpx2.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout)),
            max_retries=0,  # tenacity tries again, and `limit` counts every try
            http_client=limited_client(_MOST_BYTES),
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.max_concurrency, len(rows)))))
        if errors:
            raise errors[0]
        return answers

    async def _ask(
        self, client: AsyncOpenAI, row: Row, sampling: Sampling, limit: AdaptiveLimit, before: Callable[[int], None]
    ) -> Answer:
        """The answer to one row, or its refusal; `before` is called with the number of each try before it is sent."""
        from openai import OpenAIError
        from tenacity import AsyncRetrying, wait_exponential, wait_random

        backoff = wait_exponential(multiplier=_PAUSE_SECONDS, max=_LONGEST_PAUSE) + wait_random(0, _PAUSE_SECONDS)

        def is_last(state: RetryCallState) -> bool:
            tries = tries_of(_error(state))
            return state.attempt_number >= min(tries, self.most_tries or tries)

        def pause(state: RetryCallState) -> float:
            asked = retry_after(_error(state))
            return backoff(state) if asked is None else asked

        retrying = AsyncRetrying(stop=is_last, wait=pause, reraise=True)
        begun, request = time.monotonic(), self.request(row, sampling)
        try:
            async for attempt in retrying:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._try(client, request, limit, partial(before, number))
            raise AssertionError  # tenacity returns or raises
        except TimeoutError:
            return _refused(f"there is no whole answer within {self.timeout:.0f} s", begun)
        except OddReply as error:
            return _refused(f"its reply is not one of OpenAI's chat completions: {error}", begun)
        except OpenAIError as error:
            try:
                self._errors.raise_for(error)
            except RefusedRow as refused:
                return _refused(str(refused), begun)
            raise

    async def _try(
        self, client: AsyncOpenAI, request: dict[str, Any], limit: AdaptiveLimit, before: Callable[[], None]
    ) -> Answer:
        """Send a request once, when there is room for it."""
        from openai import APIStatusError

        async with limit.slot() as slot:
            before()
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self._request_once(client, request)
            except APIStatusError as error:
                self._errors.reached = True
                if is_throttled(error):
                    slot.throttled(retry_after(error))
                raise
            self._errors.reached = True
            slot.succeeded()
            return answer

    async def _request_once(self, client: AsyncOpenAI, request: dict[str, Any]) -> Answer:
        begun = time.monotonic()
        headers = {"Idempotency-Key": fingerprint({"endpoint": self.base_url, "request": request})}
        async with client.chat.completions.with_streaming_response.create(**request, extra_headers=headers) as response:
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
            model=reply.reported_model,
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


class _Stopped(Exception):
    """Another row has ended the run."""


def _error(state: RetryCallState) -> BaseException:
    """What ended a try."""
    found = state.outcome.exception() if state.outcome else None
    assert found is not None
    return found


def _refused(detail: str, begun: float) -> Answer:
    return Answer("", "refused", 0, 0, time.monotonic() - begun, detail=detail)


def _is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
