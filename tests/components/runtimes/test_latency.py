"""Speed is timed request by request, and its intervals hold what differs between loads of the server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.latency import LOADS, measure_speed, spread_lengths, time_requests
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.errors import StepError
from potstill.core.hashing import HashedPath


@pytest.fixture(scope="module")
def file(chain_model: Path) -> HashedPath:
    return HashedPath.of_file(chain_model.with_suffix(".gguf"))


@pytest.fixture(scope="module")
def server(file: HashedPath) -> Iterator[GGUFServer]:
    with GGUFServer(file.path, context=512) as running:
        yield running


@pytest.fixture(scope="module")
def measured(file: HashedPath) -> MeasuredSpeed:
    return measure_speed(file, [5, 90, 10_000, 30], context=512, threads=1, requests=10)


def test_each_load_answers_the_same_prompts(measured: MeasuredSpeed, file: HashedPath) -> None:
    assert measured.requests == 12 and len(measured.loads) == LOADS
    assert measured.prompt_tokens == (5, 30, 30, 90)  # the prompt that has no room is left out
    assert (measured.model_sha256, measured.context) == (file.sha256, 512)
    for timing, name in ((measured.ttft_ms, "ttft_ms"), (measured.decode_tokens_per_s, "decode_tokens_per_s")):
        medians = [getattr(load, name) for load in measured.loads]
        assert timing.low <= min(medians) <= max(medians) <= timing.high
        assert timing.low < timing.median < timing.high
    assert len(set(measured.loads)) == LOADS  # each is of a process of its own; two may load in the same 0.1 ms


def test_the_machine_is_named(measured: MeasuredSpeed) -> None:
    machine = measured.machine
    assert machine.cpu and machine.cores >= machine.threads == 1
    assert machine.runtime.startswith("llama.cpp of xllamacpp 20")
    for text in (machine.cpu, machine.runtime, "12 requests in 3 loads", "full context of 512 tokens", "1 thread."):
        assert text in measured.method


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_a_full_context(measured: MeasuredSpeed, server: GGUFServer) -> None:
    time_requests(server, [8], 8)
    assert measured.peak_rss_mb > server.peak_rss_mb() + 0.5


def test_timing_is_that_of_the_pieces(server: GGUFServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up dropped; the first piece may hold two tokens; speed leaves the first piece out."""
    timings = iter([[(9.0, 1), (99.0, 9)], [(0.25, 2), (0.5, 5), (1.25, 12)], [(0.75, 1), (1.75, 12)]])
    asked: list[dict[str, object]] = []

    def stream(body: dict[str, object]) -> list[tuple[float, int]]:
        asked.append(body)
        return next(timings)

    monkeypatch.setattr(server, "stream", stream)
    found = time_requests(server, [3, 400], 12)
    assert found.ttft_ms == pytest.approx([250, 750])
    assert found.decode_tokens_per_s == pytest.approx([10, 11])
    prompts = [body["prompt"] for body in asked]
    assert [len(prompt) for prompt in prompts if isinstance(prompt, list)] == [3, 3, 400]
    assert prompts[0] != prompts[1]
    assert all(body["cache_prompt"] is False and body["ignore_eos"] is True for body in asked)


def test_what_cannot_be_timed_is_refused(file: HashedPath, server: GGUFServer) -> None:
    with pytest.raises(StepError, match=r"None of 1 prompts leaves room.*chat\.context"):
        measure_speed(file, [500], context=512, threads=1)
    with pytest.raises(ValueError, match="8 new tokens"):
        time_requests(server, [1], 7)


def test_lengths_keep_their_distribution() -> None:
    assert spread_lengths([9, 1, 5], 3) == [1, 5, 9]
    assert spread_lengths(range(100), 4) == [12, 37, 62, 87]
    assert spread_lengths([7], 3) == [7, 7, 7]
