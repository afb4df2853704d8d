"""A package behind `potstill serve`, and its file behind llama.cpp's own HTTP server.

    python benchmarks/serve.py PACKAGE [--requests N] [--tokens N] [--threads N] [--json FILE]

Both servers run at the same time and are asked in turn, the same streamed completions, with 1 and with 4 clients. It
prints medians of the time to the first token and of the decoded tokens per second of one request.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from potstill.apps.serve.package import load_package
from potstill.components.runtimes.gguf import GGUFServer

CLIENTS = (1, 4)
SLOTS = max(CLIENTS)
Place = tuple[str, str, dict[str, str]]  # name, address with /v1, headers
Timing = tuple[float, float]  # seconds to the first token, tokens per second after it


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--requests", type=int, default=100, help="per server and number of clients")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    package = load_package(args.package)
    options = ["--port=0", f"--threads={args.threads}", f"--parallel={SLOTS}", "--json"]
    command = [sys.executable, "-m", "potstill", "serve", str(args.package), *options]
    context = package.context * SLOTS
    with (
        GGUFServer(package.model, context=context, parallel=SLOTS, threads=args.threads) as server,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        served = json.loads(process.stdout.readline())["url"]
        places: list[Place] = [
            ("llama.cpp", f"{server.address}/v1", {"Authorization": f"Bearer {server.api_key}"}),
            ("potstill serve", served, {}),
        ]
        found = {str(clients): measure(places, package.name, args, clients) for clients in CLIENTS}
        process.terminate()
    for clients, rows in found.items():
        for name, row in rows.items():
            ttft, rate = f"{row['ttft_ms']:8.2f} ms", f"{row['tokens_per_s']:8.1f} tokens/s"
            print(f"{clients} clients  {name:<15} time to first token {ttft}  decode {rate}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(places: list[Place], model: str, args: argparse.Namespace, clients: int) -> dict[str, dict[str, float]]:
    """Medians by server; the servers take turns, one batch of requests each."""
    timings: dict[str, list[Timing]] = {name: [] for name, _, _ in places}
    with ThreadPoolExecutor(clients) as pool:
        for batch in range(-1, -(-args.requests // clients)):  # the first batch warms both up
            for name, url, headers in places:
                one = [pool.submit(ask, url, headers, model, args.tokens, batch * clients + i) for i in range(clients)]
                done = [each.result() for each in one]
                timings[name] += done if batch >= 0 else []
    return {
        name: {
            "ttft_ms": 1000 * statistics.median(ttft for ttft, _ in rows),
            "tokens_per_s": statistics.median(rate for _, rate in rows),
        }
        for name, rows in timings.items()
    }


def ask(url: str, headers: dict[str, str], model: str, tokens: int, number: int) -> Timing:
    """One streamed completion; a new prompt each time, drawn alike by both servers."""
    body: dict[str, object] = {
        "model": model,
        "prompt": f"{number} lights",
        "max_tokens": tokens,
        "temperature": 1.0,
        "seed": number,
    }
    arrivals = []
    begun = time.perf_counter()
    with httpx.stream(
        "POST", f"{url}/completions", json=body | {"stream": True}, headers=headers, timeout=600
    ) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.perf_counter())
    return arrivals[0] - begun, (len(arrivals) - 1) / max(arrivals[-1] - arrivals[0], 1e-9)


if __name__ == "__main__":
    main()
