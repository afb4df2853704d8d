"""How fast llama.cpp answers: time to the first token, and decode speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from potstill.core.artifacts.metrics import Median, Timing
from potstill.core.errors import StepError
from potstill.core.progress import progress_bar
from potstill.core.stats import quantile

if TYPE_CHECKING:
    from potstill.components.runtimes.gguf import GGUFServer

__all__ = ["Latency", "measure_latency"]

_MIN_DECODED = 8  # fewer tokens give no rate


@dataclass(frozen=True)
class Latency:
    """Time to the first token in milliseconds, decode speed in tokens per second, and the number of timed requests."""

    ttft_ms: Timing
    decode_tokens_per_s: Timing
    requests: int


def measure_latency(
    server: GGUFServer, prompts: Sequence[Sequence[int]], n_requests: int, max_new_tokens: int, confidence: float
) -> Latency:
    """Time requests one after the other, with nothing cached between them.

    The first request warms the server up and is not counted. The time to the first token runs from the client's request
    to the arrival of the first token. The speed is the number of tokens after the first divided by the time between the
    first and the last, so the length of the prompt has no effect on it. End tokens are ignored: each request makes
    `max_new_tokens`.

    Args:
        server: a running server.
        prompts: token ids, used in turn; prompts that leave no room for the answer are skipped.
        n_requests: number of timed requests.
        max_new_tokens: tokens per request, at least 8.
        confidence: level of the intervals.

    Raises:
        StepError: no prompt leaves room for the answer.
        ValueError: fewer than 8 new tokens, or no request.
    """
    if max_new_tokens < _MIN_DECODED or n_requests < 1:
        raise ValueError(f"needs {_MIN_DECODED} new tokens and one request, got {max_new_tokens} and {n_requests}")
    fitting = [list(p) for p in prompts if 0 < len(p) <= server.slot_context - max_new_tokens]
    if not fitting:
        raise StepError(
            f"None of {len(prompts)} prompts leaves room for {max_new_tokens} tokens in a context of "
            f"{server.slot_context}, so speed cannot be measured. Raise chat.context."
        )
    ttft_ms: list[float] = []
    speeds: list[float] = []
    with progress_bar("measure speed", n_requests + 1) as ticker:
        for number in range(n_requests + 1):
            body = {"prompt": fitting[number % len(fitting)], "n_predict": max_new_tokens, "temperature": 0}
            arrivals = server.stream(body | {"ignore_eos": True, "cache_prompt": False})
            ticker.advance()
            # half a character is held back until it is whole, so the first piece may hold more than one token
            if number and len(arrivals) > 1 and arrivals[-1][1] >= _MIN_DECODED:
                (first, n_first), (last, n_last) = arrivals[0], arrivals[-1]
                ttft_ms.append(1000 * first)
                speeds.append((n_last - n_first) / (last - first))
    if not speeds:
        raise StepError(
            f"None of {n_requests} requests to {server.model.name} made {_MIN_DECODED} tokens, so speed cannot be "
            "measured."
        )
    return Latency(_timing(ttft_ms, confidence), _timing(speeds, confidence), len(speeds))


def _timing(values: Sequence[float], confidence: float) -> Timing:
    return Timing(**Median.of(values, confidence).model_dump(), p95=quantile(values, 0.95))
