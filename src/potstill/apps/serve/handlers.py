"""Answers of the server's two paths: policy first, then OpenAI's format."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from potstill.apps.serve.attempt import CHAT, Attempt, ask_twice
from potstill.apps.serve.errors import ApiError, bad_request
from potstill.apps.serve.exchange import Exchange
from potstill.apps.serve.larger import Unreachable, agree
from potstill.apps.serve.replies import answer_reply, as_chunks, completion_reply, withheld_reply
from potstill.apps.serve.requests import ChatRequest, CompletionRequest, parse_chat, parse_completion
from potstill.apps.serve.service import Service
from potstill.apps.serve.streams import CancellableStream, relayed
from potstill.components.deferral.decisions import Decision, decide

__all__ = ["chat", "completions"]

_COMPLETIONS = "/v1/completions"
_GONE = 499
Reply = dict[str, Any]
T = TypeVar("T")
Answer = Callable[[bytes, AsyncExitStack], Awaitable[Response]]
"""Makes the response to a body; what must be closed after the response is put on the stack."""


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    service: Service = request.app.state.service
    exchange = Exchange("chat")

    async def answer(body: bytes, stack: AsyncExitStack) -> Response:
        wanted = parse_chat(body, service.package.name)
        _note_request(exchange, wanted, wanted.messages[-1].content or "")
        exchange.tools = len(wanted.offered)
        await _enter_slot(service, exchange, stack)
        if wanted.stream and not _is_judged(service, wanted):
            exchange.decision = decide(service.rules, None, {})
            body_ = wanted.upstream(service.settings.limits.max_tokens)
            if wanted.logprobs:
                body_ |= {"logprobs": True, "top_logprobs": wanted.top_logprobs or 0}
            return await _relay(service, exchange, CHAT, body_, wanted, stack)
        reply = await _decided(service, exchange, wanted)
        if not wanted.stream:
            exchange.sent()
            return JSONResponse(reply, headers=exchange.headers())
        usage = wanted.stream_options is not None and wanted.stream_options.include_usage
        return CancellableStream(_sent(exchange, reply, usage), headers=exchange.headers())

    return await _respond(request, service, exchange, answer)


async def completions(request: Request) -> Response:
    """POST /v1/completions. No policy holds for it, because policies are calibrated on chats."""
    service: Service = request.app.state.service
    exchange = Exchange("completions")

    async def answer(body: bytes, stack: AsyncExitStack) -> Response:
        wanted = parse_completion(body, service.package.name)
        _note_request(exchange, wanted, wanted.prompt)
        await _enter_slot(service, exchange, stack)
        asked = wanted.upstream(service.settings.limits.max_tokens)
        if wanted.stream:
            return await _relay(service, exchange, _COMPLETIONS, asked, wanted, stack)
        reply = completion_reply(await service.upstream.post(_COMPLETIONS, asked), wanted, service.package.name)
        _note_usage(exchange, reply)
        exchange.sent()
        return JSONResponse(reply, headers=exchange.headers())

    return await _respond(request, service, exchange, answer)


# ---- one request ----


async def _respond(request: Request, service: Service, exchange: Exchange, answer: Answer) -> Response:
    """The response to a request: its answer, or an error. The exchange ends exactly once, however it ends."""
    stack = AsyncExitStack()
    stack.callback(lambda: service.ended(exchange))
    limits = service.settings.limits
    try:
        body = await _body(request, limits.body_bytes, limits.body_seconds)
        service.require_ready()
        async with asyncio.timeout(limits.request_seconds):
            response = await _unless_gone(request, answer(body, stack))
        service.require_ready()  # nothing leaves that a changed file may have said
    except ApiError as error:
        return await _failed(exchange, error, stack)
    except TimeoutError:
        slow = f"The answer took more than {limits.request_seconds:g} s, the limit of this server."
        return await _failed(exchange, ApiError(504, "server_error", slow, code="timeout"), stack)
    except ClientDisconnect:
        gone = ApiError(_GONE, "server_error", "The client has gone.", code="client_disconnected")
        return await _failed(exchange, gone, stack)
    except BaseException:
        exchange.status, exchange.error = 500, "internal"
        await stack.aclose()
        raise
    if isinstance(response, CancellableStream):
        response.finish_with(stack, exchange, limits.request_seconds)
    else:
        await stack.aclose()
    return response


async def _failed(exchange: Exchange, error: ApiError, stack: AsyncExitStack) -> Response:
    exchange.failed(error)
    exchange.decision = None
    await stack.aclose()
    return JSONResponse(error.body(), error.status, exchange.headers() | error.headers())


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """The request's body.

    Raises:
        ApiError: it is not JSON by its type, too large, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a web page could send other types without asking its browser
        raise bad_request("The header Content-Type must be application/json.", code="unsupported_type", status=415)
    length = request.headers.get("content-length", "")
    data = bytearray()
    try:
        async with asyncio.timeout(seconds):
            if not (length.isdigit() and int(length) > most):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most:
                        break
                else:
                    return bytes(data)
    except TimeoutError:
        raise bad_request(f"The body did not arrive within {seconds:g} s.", code="slow_body", status=408) from None
    raise bad_request(f"The body has more than {most:,} bytes, the limit of this server.", code="body_size", status=413)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled when the client closes the connection."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _enter_slot(service: Service, exchange: Exchange, stack: AsyncExitStack) -> None:
    begun = time.monotonic()
    await stack.enter_async_context(service.slots.slot())
    exchange.queue_seconds = time.monotonic() - begun


def _note_request(exchange: Exchange, wanted: ChatRequest | CompletionRequest, prompt: str) -> None:
    exchange.stream, exchange.prompt = wanted.stream, prompt
    exchange.temperature, exchange.max_tokens = wanted.temperature, wanted.max_tokens


def _note_usage(exchange: Exchange, reply: Reply) -> None:
    exchange.input_tokens = reply["usage"]["prompt_tokens"]
    exchange.output_tokens = reply["usage"]["completion_tokens"]
    exchange.finish_reason = reply["choices"][0]["finish_reason"]


# ---- the decision ----


def _is_judged(service: Service, wanted: ChatRequest) -> bool:
    """Whether an answer must be whole before its first word may be sent."""
    return bool(wanted.offered) or wanted.answer_schema is not None or service.policy is not None


async def _decided(service: Service, exchange: Exchange, wanted: ChatRequest) -> Reply:
    """The reply to a request: the model's answer, or what the policy gives in its place."""
    limit = service.settings.limits.max_tokens
    attempt = await ask_twice(service.upstream, wanted, limit, scored=service.policy is not None)
    exchange.input_tokens, exchange.output_tokens = attempt.prompt_tokens, attempt.completion_tokens
    exchange.finish_reason, exchange.calls = attempt.finish_reason, len(attempt.parsed.calls)
    exchange.invalid, exchange.repaired = attempt.problem is not None, attempt.repaired
    decision = decide(service.rules, attempt.problem, attempt.scores)
    if wanted.temperature > 0 and decision.promise == "holds":
        decision = replace(decision, promise="none")  # the policy was made for greedy answers
    exchange.decision = decision
    name = service.package.name
    if decision.action == "answer" and attempt.reply is not None:
        _audit(service, wanted, attempt)
        return answer_reply(attempt.reply, wanted, name, decision)
    if decision.action == "escalate":
        passed_on = await _escalated(service, exchange, wanted, decision)
        if passed_on is not None:
            return passed_on
        decision = exchange.decision
    return withheld_reply(name, decision, attempt.prompt_tokens, attempt.completion_tokens)


async def _escalated(service: Service, exchange: Exchange, wanted: ChatRequest, decision: Decision) -> Reply | None:
    """The larger model's answer; None where there is none, and the decision is the offline action then."""
    policy = service.policy
    assert policy is not None  # without a policy nothing is escalated
    try:
        if service.larger is None:
            raise Unreachable
        reply, parsed = await service.larger.ask(wanted, service.settings.limits.max_tokens)
    except Unreachable:
        exchange.decision = Decision(policy.offline, "offline", decision.score, decision.promise)
        return None
    exchange.model, exchange.calls = "larger", len(parsed.calls)
    exchange.finish_reason = "tool_calls" if parsed.calls else "stop"
    return answer_reply(reply, wanted, service.larger.model, decision)


def _audit(service: Service, wanted: ChatRequest, attempt: Attempt) -> None:
    """Ask the larger model a small random share of the answered requests too; only the agreement is counted."""
    larger = service.larger
    if larger is None or random.random() >= service.settings.audit_share:
        return

    async def compare() -> None:
        try:
            _, parsed = await larger.ask(wanted, service.settings.limits.max_tokens)
            result = "agrees" if agree(attempt.parsed, parsed) else "differs"
        except Unreachable:
            result = "unreachable"
        service.metrics.audits.labels(result).inc()

    service.spawn(compare())


# ---- streams ----


async def _sent(exchange: Exchange, reply: Reply, usage: bool) -> AsyncIterator[bytes]:
    for chunk in as_chunks(reply, usage=usage):
        exchange.sent()
        yield chunk


async def _relay(
    service: Service,
    exchange: Exchange,
    path: str,
    body: Reply,
    wanted: ChatRequest | CompletionRequest,
    stack: AsyncExitStack,
) -> Response:
    """A stream that is passed on as it comes; nothing has to be judged."""
    usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    events = await stack.enter_async_context(service.upstream.stream(path, asked))
    return CancellableStream(relayed(events, exchange, usage=usage), headers=exchange.headers())
