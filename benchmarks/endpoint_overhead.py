"""What potstill adds to the time of a plain concurrent client: journal, budget, retries, adaptive concurrency.

    python benchmarks/endpoint_overhead.py [--rows 60] [--repeats 5] [--json FILE]

The endpoint is llama.cpp's server with the teacher of the home assistant (6 million parameters), 4 slots. The plain
client is the openai package with a semaphore. Both send the same requests, in turn, to the same server; each call of
potstill has a journal of its own. An answer of a larger model takes longer, and the same overhead is then a smaller
share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.endpoint import EndpointRuntime
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.components.runtimes.spending import Account, Spending
from potstill.core.recipe import Budget
from potstill.core.records import Row, read_rows

HOME = Path(__file__).parents[1] / "examples" / "home-assistant"
SLOTS = 4
SAMPLING = Sampling(max_new_tokens=64)


def with_plain_client(url: str, key: str, bodies: list[dict[str, Any]]) -> list[str]:
    """The raw replies to the requests."""

    async def ask_all() -> list[str]:
        limit = asyncio.Semaphore(SLOTS)
        async with AsyncOpenAI(base_url=url, api_key=key) as client:

            async def ask(body: dict[str, Any]) -> str:
                async with limit:
                    return (await client.chat.completions.create(**body)).model_dump_json()

            return await asyncio.gather(*(ask(body) for body in bodies))

    return asyncio.run(ask_all())


def with_potstill(teacher: EndpointRuntime, rows: list[Row], folder: Path) -> list[str]:
    """The texts of the answers."""
    budget = Spending(Budget(requests=10 * len(rows)))
    journal = Journal(folder / f"{time.monotonic_ns()}.sqlite", teacher.base_url, "run")
    runtime = JournaledRuntime(teacher, journal, Account(budget, None, "", SLOTS))
    runtime.announce([(rows, SAMPLING)])
    return [answer.text for answer in runtime.answer(rows, SAMPLING, "rows")]


def measured(work: Callable[[], list[str]]) -> tuple[float, float]:
    """Seconds that it takes, and CPU seconds of this process."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - cpu


def main() -> None:
    """Measure in turn, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = read_rows(HOME / "data" / "test.jsonl", tools=HOME / "tools.json", limit=options.rows)
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "potstill": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert_checkpoint(HOME / "teacher", folder / "teacher.gguf")
        with GGUFServer(folder / "teacher.gguf", context=1024 * SLOTS, parallel=SLOTS) as server:
            os.environ["OPENAI_API_KEY"] = server.api_key
            teacher = EndpointRuntime(f"{server.address}/v1", "m", "OPENAI_API_KEY", SLOTS)
            bodies = [teacher.request(row, SAMPLING) for row in rows]
            with_plain_client(teacher.base_url, server.api_key, bodies)  # warm
            for _ in range(options.repeats):
                taken["plain"].append(measured(lambda: with_plain_client(teacher.base_url, server.api_key, bodies)))
                taken["potstill"].append(measured(lambda: with_potstill(teacher, rows, folder)))
    (plain, plain_cpu), (ours, our_cpu) = (
        [statistics.median(values) for values in zip(*taken[name], strict=True)] for name in ("plain", "potstill")
    )
    ratios = [b / a - 1 for (a, _), (b, _) in zip(taken["plain"], taken["potstill"], strict=True)]
    print(f"plain client {plain:.2f} s, potstill {ours:.2f} s for {len(rows)} requests (medians of {options.repeats})")
    print(f"overhead {100 * (ours / plain - 1):+.1f} %; pair by pair {100 * statistics.median(ratios):+.1f} % (median)")
    print(f"CPU of the client: plain {plain_cpu:.2f} s, potstill {our_cpu:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(taken, indent=2) + "\n")


if __name__ == "__main__":
    main()
