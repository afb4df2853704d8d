"""What the speed stage and `potstill bench` measure: speed.json."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import ClassVar

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.format import format_count, format_level, format_number

__all__ = ["Machine", "MeasuredSpeed", "ServerLoad", "SpeedTiming", "timings"]

_BUSY = 0.25
_LOADS = 3


class Machine(Part):
    """The machine, and how llama.cpp ran on it. Loads are numbers of busy cores; None where the system does not say.

    cpu           name of the processor or of the board
    cores         its cores, each hardware thread counted
    system        operating system and instruction set
    runtime       name and version of the runtime
    threads       threads of llama.cpp
    load_before   all processes, just before the measurement
    load_after    all processes, just after it
    load_others   other processes, while it was measured
    """

    cpu: str
    cores: int
    system: str
    runtime: str
    threads: int
    load_before: float | None
    load_after: float | None
    load_others: float | None

    @property
    def busy(self) -> bool:
        """Whether other processes used more than a quarter of the cores."""
        load = self.load_before if self.load_others is None else self.load_others
        return load is not None and load > _BUSY * self.cores

    @property
    def sentence(self) -> str:
        """What a page says about the machine and its load."""
        cores, used = format_count(self.cores, "core"), format_count(self.threads, "thread")
        text = f"{self.cpu} with {cores}, {self.system}; {self.runtime} with {used}."
        if self.load_before is None or self.load_after is None:
            return text
        loads = f"{self.load_before:.1f} busy cores before and {self.load_after:.1f} after"
        if self.load_others is not None:
            loads += f"; other processes used {self.load_others:.1f} in between"
        return f"{text} Load: {loads}.{' The machine was busy.' if self.busy else ''}"


class SpeedTiming(Part):
    """What the requests of one load of the server took, each number with its interval over the loads.

    median   half of the requests are slower
    tail     5 % of the requests are slower: the 95th percentile of times, the 5th of speeds
    """

    median: float
    low: float
    high: float
    tail: float
    tail_low: float
    tail_high: float

    @classmethod
    def of(cls, medians: Sequence[float], tails: Sequence[float], confidence: float) -> SpeedTiming:
        """From the median and the percentile of each of three loads, all positive.

        Their logarithms are averaged, and the interval is Student's with two degrees of freedom. So it holds what
        differs between loads and what differs between the requests of a load.
        """
        (median, low, high), (tail, tail_low, tail_high) = (_t_interval(each, confidence) for each in (medians, tails))
        return cls(median=median, low=low, high=high, tail=tail, tail_low=tail_low, tail_high=tail_high)


class ServerLoad(Part):
    """One load of the server, in a process of its own: seconds until it was ready, and what its requests took.

    ttft_ms, decode_tokens_per_s   medians
    ttft_ms_p95                    95th percentile
    decode_tokens_per_s_p5         5th percentile
    """

    load_s: float
    ttft_ms: float
    ttft_ms_p95: float
    decode_tokens_per_s: float
    decode_tokens_per_s_p5: float


class MeasuredSpeed(Artifact):
    """A GGUF file in llama.cpp on one machine, with one slot and one request after the other.

    model_sha256          SHA-256 (hex) of the file
    prompt_tokens         tokens of each prompt that one load answered
    new_tokens            tokens of each answer
    context               tokens of context
    requests              number of timed requests, over all loads
    confidence            that of the intervals
    ttft_ms               milliseconds from request to first token
    decode_tokens_per_s   tokens per second after the first token
    peak_rss_mb           most memory that a process held, with a full context, in 10^6 bytes
    """

    FILE: ClassVar[str] = "speed.json"

    model_sha256: str
    machine: Machine
    prompt_tokens: tuple[int, ...]
    new_tokens: int
    context: int
    requests: int
    confidence: float
    ttft_ms: SpeedTiming
    decode_tokens_per_s: SpeedTiming
    peak_rss_mb: float
    loads: tuple[ServerLoad, ...]

    def at(self, confidence: float) -> MeasuredSpeed:
        """The same measurement with intervals of another confidence."""
        return self.model_copy(update={"confidence": confidence, **timings(self.loads, confidence)})

    @property
    def load_s(self) -> float:
        """Median of the seconds until the server was ready."""
        return statistics.median(load.load_s for load in self.loads)

    @property
    def median_prompt(self) -> int:
        """Median number of tokens of a prompt."""
        return round(statistics.median(self.prompt_tokens))

    @property
    def method(self) -> str:
        """How it was measured, in sentences."""
        first, last = min(self.prompt_tokens), max(self.prompt_tokens)
        lengths = f"{first:,} to {last:,} tokens" if first < last else f"{first:,} tokens"
        ttft = [load.ttft_ms for load in self.loads]
        decode = [load.decode_tokens_per_s for load in self.loads]
        level = format_level(self.confidence)
        return (
            f"{self.machine.sentence} {self.requests} requests in {len(self.loads)} loads of the server, one after the "
            f"other, with prompts of {lengths}, answers of {self.new_tokens} tokens and nothing cached. The loads' "
            f"medians are {_range(ttft)} ms and {_range(decode)} tokens/s; intervals are {level} intervals over the "
            f"loads. Peak memory is that with a full context of {self.context:,} tokens."
        )


def timings(loads: Sequence[ServerLoad], confidence: float) -> dict[str, SpeedTiming]:
    """`ttft_ms` and `decode_tokens_per_s` over three loads of the server."""
    ttft, slow_ttft = [load.ttft_ms for load in loads], [load.ttft_ms_p95 for load in loads]
    speed, slow_speed = [load.decode_tokens_per_s for load in loads], [load.decode_tokens_per_s_p5 for load in loads]
    return {
        "ttft_ms": SpeedTiming.of(ttft, slow_ttft, confidence),
        "decode_tokens_per_s": SpeedTiming.of(speed, slow_speed, confidence),
    }


def _t_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Geometric mean of three positive values, and the ends of its interval."""
    logs = [math.log(value) for value in values]
    if len(logs) != _LOADS:
        raise ValueError(f"needs {_LOADS} values, got {len(logs)}")
    t = confidence * math.sqrt(2 / (1 - confidence**2))  # the quantile for two degrees of freedom
    mean, half = statistics.fmean(logs), t * statistics.stdev(logs) / math.sqrt(_LOADS)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _range(values: list[float]) -> str:
    ends = dict.fromkeys(format_number(end) for end in (min(values), max(values)))
    return " to ".join(ends)
