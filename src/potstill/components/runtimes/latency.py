"""How fast llama.cpp answers with a GGUF file on this machine, and how much memory it holds."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.artifacts.speed import Machine, MeasuredSpeed, ServerLoad, timings
from potstill.core.errors import StepError
from potstill.core.hashing import HashedPath
from potstill.core.machine import LoadWatch, cpu_cores, cpu_name
from potstill.core.progress import progress_bar
from potstill.core.stats import quantile

__all__ = ["LOADS", "REQUESTS", "measure_speed", "spread_lengths", "time_requests"]

LOADS = 3
REQUESTS = 120
"""Timed requests over all loads, unless the caller asks for another number."""
_NEW_TOKENS = 32
_MIN_DECODED = 8  # fewer tokens give no rate
_CONFIDENCE = 0.9  # of the intervals, until a recipe's gates.alpha says another
_TEXT = (
    "In the morning the two of them walked down to the harbour, where the boats had come in early. They bought bread, "
    "4 apples and a newspaper of 12 May, and asked a man in a blue coat when the next ferry would leave. "
)


@dataclass(frozen=True)
class Latency:
    """Time to the first token in milliseconds, and tokens per second after it, of each request."""

    ttft_ms: list[float]
    decode_tokens_per_s: list[float]

    def load(self, load_s: float) -> ServerLoad:
        """Medians and the slowest 5 %, for a server that was ready after `load_s` seconds."""
        ttft, speed = self.ttft_ms, self.decode_tokens_per_s
        return ServerLoad(
            load_s=load_s,
            ttft_ms=statistics.median(ttft),
            ttft_ms_p95=_central_quantile(ttft, 0.95),
            decode_tokens_per_s=statistics.median(speed),
            decode_tokens_per_s_p5=_central_quantile(speed, 0.05),
        )


def measure_speed(
    model: HashedPath, prompt_tokens: Sequence[int], *, context: int, threads: int, requests: int = REQUESTS
) -> MeasuredSpeed:
    """Measure a GGUF file in three fresh processes, one after the other, with one slot.

    What differs between two loads of a server (where its memory lies, what else the machine does) does not differ
    between two requests, so the intervals are over the loads. Speed depends on the number of tokens and not on their
    meaning, so prompts are pieces of one text, cut to the given lengths.

    Args:
        model: the file.
        prompt_tokens: numbers of tokens of typical prompts; the same for each load.
        context: tokens of context. The last process fills it once, so that its peak memory is that of a full context.
        threads: threads of llama.cpp.
        requests: number of timed requests over all loads, rounded up to a multiple of them.

    Raises:
        StepError: llama.cpp cannot serve the file, or no prompt leaves room for the answer.
    """
    lengths = _fitting(prompt_tokens, context, -(-requests // LOADS))
    watch, found, loads = LoadWatch(), list[Latency](), list[ServerLoad]()
    with progress_bar("measure speed", LOADS * (len(lengths) + 1) + 1) as ticker:
        for number in range(LOADS):
            with GGUFServer(model.path, context=context, threads=threads) as server:
                found.append(time_requests(server, lengths, _NEW_TOKENS, ticker.advance))
                if number == LOADS - 1:
                    _fill_context(server)
                    ticker.advance()
                peak = server.peak_rss_mb()
            loads.append(found[-1].load(server.load_seconds))
    return MeasuredSpeed(
        model_sha256=model.sha256,
        machine=_machine(watch, threads),
        prompt_tokens=tuple(sorted(lengths)),
        new_tokens=_NEW_TOKENS,
        context=context,
        requests=sum(len(latency.ttft_ms) for latency in found),
        confidence=_CONFIDENCE,
        **timings(loads, _CONFIDENCE),
        peak_rss_mb=peak,
        loads=tuple(loads),
    )


def spread_lengths(lengths: Sequence[int], count: int) -> list[int]:
    """This number of lengths, evenly spaced over the sorted ones, so that the distribution is the same."""
    ordered = sorted(lengths)
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def _fitting(prompt_tokens: Sequence[int], context: int, count: int) -> list[int]:
    """Lengths of one load's prompts, in the order in which they are sent."""
    fitting = [length for length in prompt_tokens if 0 < length <= context - _NEW_TOKENS]
    if not fitting:
        raise StepError(
            f"None of {len(prompt_tokens)} prompts leaves room for {_NEW_TOKENS} tokens in a context of {context}, so "
            "speed cannot be measured. Raise chat.context."
        )
    lengths = spread_lengths(fitting, count)
    random.Random(0).shuffle(lengths)  # so that a change of the machine's speed does not affect short prompts alone
    return lengths


def time_requests(
    server: GGUFServer, lengths: Sequence[int], new_tokens: int, advance: Callable[[], None] = lambda: None
) -> Latency:
    """Time requests one after the other, with nothing cached between them.

    The first request warms the server up and is not counted. The time to the first token runs from the submission of
    the request to the arrival of the first token. The speed is the number of tokens after the first divided by the time
    between the first and the last, so the length of the prompt has no effect on it. End tokens are ignored: each
    request makes `new_tokens`.

    Args:
        server: a running server.
        lengths: tokens of each prompt.
        new_tokens: tokens per request, at least 8.
        advance: is called after each request.

    Raises:
        StepError: no request made 8 tokens.
        ValueError: fewer than 8 new tokens, or no prompt.
    """
    if new_tokens < _MIN_DECODED or not lengths:
        raise ValueError(f"needs {_MIN_DECODED} new tokens and one prompt, got {new_tokens} and {len(lengths)}")
    found, text = Latency([], []), server.tokenize(_TEXT)
    for number, length in enumerate((lengths[0], *lengths)):
        body = {"prompt": _prompt(text, length, number), "n_predict": new_tokens, "temperature": 0}
        arrivals = server.stream(body | {"ignore_eos": True, "cache_prompt": False})
        advance()
        # half a character is held back until it is whole, so the first piece may hold more than one token
        if number and len(arrivals) > 1 and arrivals[-1][1] >= _MIN_DECODED:
            (first, n_first), (last, n_last) = arrivals[0], arrivals[-1]
            found.ttft_ms.append(1000 * first)
            found.decode_tokens_per_s.append((n_last - n_first) / (last - first))
    if not found.ttft_ms:
        raise StepError(
            f"None of {len(lengths)} requests to {server.model.name} made {_MIN_DECODED} tokens, so speed cannot be "
            "measured."
        )
    return found


def _central_quantile(values: Sequence[float], q: float) -> float:
    """A quantile that is not biased by the number of values (Hyndman and Fan 1996, type 8)."""
    n = len(values)
    return quantile(values, min(1.0, max(0.0, ((n + 1 / 3) * q - 2 / 3) / (n - 1)))) if n > 1 else values[0]


def _prompt(text: Sequence[int], length: int, start: int) -> list[int]:
    """A prompt of this length from the repeated tokens of a text; another start gives another prompt."""
    return list(itertools.islice(itertools.cycle(text), start, start + length))


def _fill_context(server: GGUFServer) -> None:
    """Fill the server's context with tokens. Its buffers then hold as much memory as they ever will."""
    server.stream(
        {
            "prompt": _prompt(server.tokenize(_TEXT), server.slot_context - 1, 0),
            "n_predict": 1,
            "cache_prompt": False,
            "return_progress": True,  # a long prompt takes longer than a client waits for a silent server
        }
    )


def _machine(watch: LoadWatch, threads: int) -> Machine:
    load = watch.stop()
    return Machine(
        cpu=cpu_name(),
        cores=cpu_cores(),
        system=f"{platform.system()} {platform.machine()}",
        runtime=f"llama.cpp of xllamacpp {importlib.metadata.version('xllamacpp')}",
        threads=threads,
        load_before=load.before,
        load_after=load.after,
        load_others=load.others,
    )
