"""Run a model behind an OpenAI-compatible endpoint, such as OpenAI, Ollama, llama.cpp or vLLM."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from potstill.components.runtimes import Answer, OnAnswers, Sampling
from potstill.components.runtimes.answer_store import AskedTogether
from potstill.components.runtimes.log_probs import pack_tokens, read_tokens
from potstill.core.errors import TeacherError
from potstill.core.progress import Ticker, progress_bar
from potstill.core.records import Row, with_call_ids

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

__all__ = ["EndpointRuntime"]

_TIMEOUT_SECONDS = 600.0
_THINKING = ("reasoning_content", "reasoning")
"""Keys of an answer with the model's thinking: llama.cpp and DeepSeek; vLLM and OpenRouter."""
_MAX_RETRIES = 6  # after connection errors, 408, 409, 429 and 5xx, with growing pauses


class EndpointRuntime:
    """Answers rows by POST /chat/completions.

    Args:
        base_url: the address, including /v1.
        model: the endpoint's name for the model.
        api_key_env: environment variable that holds the key; an endpoint on this machine needs none.
        max_concurrency: maximum number of requests in flight.
        max_retries: number of retries of a request that may still succeed.
        top_logprobs: number of log-probabilities to request at each token of an answer; None: do not request any.

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
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.api_key_env = api_key_env
        self.max_concurrency = max_concurrency
        self.max_retries = max_retries
        self.top_logprobs = top_logprobs
        self._gave_logprobs = False
        self._host = urlsplit(base_url).hostname or ""
        key = os.environ.get(api_key_env)
        if not key and not _is_local(self._host):
            raise TeacherError(
                f"{base_url}: the environment variable {api_key_env} is not set, so there is no key for this endpoint. "
                "Set it, or name another in teacher.api_key_env; if the endpoint wants no key, set it to any text."
            )
        self._key = key or "none"

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`. Tool calls come back as text in Hermes markup, so that one parser judges every runtime.

        `on_answers` is called with each answer as it arrives. When a request fails for good, no further request is
        sent; requests in flight are waited for, because they are paid for.

        Raises:
            TeacherError: the endpoint cannot be reached, rejects the key, the model or a prompt, does not follow
                OpenAI's API, or does not return the requested log-probabilities with its first answer in words.
        """
        with progress_bar(label, len(rows)) as ticker:
            answers = asyncio.run(self._answer_all(rows, sampling, ticker, on_answers))
        return [answers[index] for index in range(len(rows))]

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """See `Teacher`: each row on its own."""
        return [AskedTogether([place], self._request(row, sampling)) for place, row in enumerate(rows)]

    async def _answer_all(
        self, rows: Sequence[Row], sampling: Sampling, ticker: Ticker, on_answers: OnAnswers | None
    ) -> dict[int, Answer]:
        from openai import AsyncOpenAI

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
            base_url=self.base_url, api_key=self._key, timeout=_TIMEOUT_SECONDS, max_retries=self.max_retries
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.max_concurrency, len(rows)))))
        if errors:
            raise errors[0]
        return answers

    async def _ask(self, client: AsyncOpenAI, row: Row, sampling: Sampling) -> Answer:
        from openai import OpenAIError

        begun = time.monotonic()
        try:
            reply: Any = await client.chat.completions.create(**self._request(row, sampling))
        except OpenAIError as error:
            raise TeacherError(self._explain(error, row)) from None
        choices = getattr(reply, "choices", None)  # a page of HTML arrives as a string
        if not choices:
            raise TeacherError(
                f"{self.base_url}: the answer is not one of OpenAI's chat completions ({str(reply)[:120]!r}). Check "
                "that teacher.base_url names an OpenAI-compatible API; most end in /v1."
            )
        usage = reply.usage
        return Answer(
            text=_hermes_text(choices[0].message, thinking=not self.top_logprobs),
            finish_reason="length" if choices[0].finish_reason in ("length", "content_filter") else "stop",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            seconds=time.monotonic() - begun,
            tokens=self._tokens(choices[0]) if self.top_logprobs else None,
        )

    def _tokens(self, choice: Any) -> str | None:
        """Packed log-probabilities of an answer; None where the endpoint gives none, as some do for tool calls."""
        try:
            tokens = read_tokens(choice)
        except ValueError as error:
            raise TeacherError(
                f"{self.base_url}: the values that it returns as log-probabilities are not log-probabilities: {error}. "
                "Start vLLM with --logprobs-mode raw_logprobs. An endpoint that cannot return log-probabilities can "
                "teach by its text alone: set train.objective: sft."
            ) from None
        if tokens:
            self._gave_logprobs = True
            return pack_tokens(tokens)
        if self._gave_logprobs or choice.message.tool_calls or not _hermes_text(choice.message).strip():
            return None
        raise TeacherError(self._without_logprobs("an answer came without them"))

    def _without_logprobs(self, reason: str) -> str:
        return (
            f"{self.base_url}: it does not give the log-probabilities of the {self.top_logprobs} likeliest tokens, "
            f"which train.objective.targets asks for ({reason}). llama.cpp's server gives them, and so does vLLM up to "
            "its --max-logprobs. Use such an endpoint or a smaller train.objective.targets.k; or learn from its text "
            "alone: set train.objective: sft."
        )

    def _request(self, row: Row, sampling: Sampling) -> dict[str, Any]:
        # newer models of OpenAI reject max_tokens, and other servers know only max_tokens
        limit = "max_completion_tokens" if self._host == "api.openai.com" else "max_tokens"
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [message.for_api() for message in with_call_ids(row.messages)],
            "temperature": sampling.temperature,
            limit: sampling.max_new_tokens,
        }
        if self.top_logprobs:
            request |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if row.tools:
            request["tools"] = list(row.tools)
        if sampling.temperature > 0:
            request |= {"top_p": sampling.top_p, "seed": sampling.seed}
        return request

    def _explain(self, error: OpenAIError, row: Row) -> str:
        """One paragraph: what went wrong at the endpoint, and what to do."""
        import openai

        where = f"{self.base_url}: "
        reason = _reason(error)
        if isinstance(error, openai.APITimeoutError):
            return f"{where}no answer within {_TIMEOUT_SECONDS:.0f} s. Lower teacher.max_concurrency, then run again."
        if isinstance(error, openai.APIConnectionError):
            return (
                f"{where}cannot be reached ({reason}). Start the server, or correct teacher.base_url, then run again."
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"{where}the key is refused ({reason}). Put a valid one into the variable {self.api_key_env}."
        if isinstance(error, openai.NotFoundError):
            return (
                f"{where}no model {self.model!r}, or nothing at this address ({reason}). Correct teacher.model, "
                f"or teacher.base_url: most end in /v1, and {self.base_url.rstrip('/')}/models lists the models."
            )
        if isinstance(error, openai.RateLimitError):
            return (
                f"{where}over its limit, also after {self.max_retries} more tries ({reason}). Lower "
                "teacher.max_concurrency or wait, then run again; answers so far are kept."
            )
        if self.top_logprobs and "logprobs" in reason.lower():
            return self._without_logprobs(reason)
        prompt = row.name
        if isinstance(error, openai.InternalServerError):
            return (
                f"{where}fails on the prompt of {prompt}, also after {self.max_retries} more tries ({reason}). Look "
                "into the server's log, then run again; answers so far are kept."
            )
        return f"{where}refuses the prompt of {prompt} ({reason}). Fix or remove that row, then run again."


def _is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _reason(error: OpenAIError) -> str:
    """What went wrong, in one line: the endpoint's own message, or the cause of a lost connection."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        text = body["message"]
    else:
        text = str(error.__cause__ or error)
    status = getattr(error, "status_code", None)
    return f"{f'{status}: ' if status else ''}{' '.join(text.split())[:300].rstrip('.')}"


def _hermes_text(message: Any, *, thinking: bool = False) -> str:
    """An assistant message as text: its thinking in <think> where wanted, its words, each tool call in Hermes markup.

    Arguments are put in as the endpoint wrote them, so that a broken call is still broken for the parser.
    """
    words = message.content or getattr(message, "refusal", None) or ""
    parts = [words] if words else []
    for call in message.tool_calls or ():
        if call.type not in ("function", None):
            continue
        arguments = call.function.arguments
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(call.function.name, ensure_ascii=False)
        parts.append(f'<tool_call>\n{{"name": {name}, "arguments": {written.strip() or "{}"}}}\n</tool_call>')
    thought = next((t for key in _THINKING if isinstance(t := getattr(message, key, None), str) and t.strip()), "")
    before = f"<think>\n{thought.strip()}\n</think>\n\n" if thinking and thought else ""
    return before + "\n".join(parts)
