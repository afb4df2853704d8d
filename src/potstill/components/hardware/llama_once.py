"""Run one model in llama.cpp in a process of its own, and print how fast and how large it was.

    python llama_once.py MODEL --context N --kv-type T --parallel P --prompt N --decode N --repeats N --threads T

Prints one JSON object: `peak_bytes`, `load_seconds`, and the tokens per second of each answer, `prefill` and `decode`.
It imports only the standard library and xllamacpp, because everything else would count in the measured memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import urllib.request
from typing import Any

_ERRORS = 1  # llama.cpp's verbosity


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_once")
    parser.add_argument("model")
    parser.add_argument("--kv-type", default="f16")
    for name in ("context", "parallel", "prompt", "decode", "repeats", "threads"):
        parser.add_argument(f"--{name}", type=int, default=1)
    return parser.parse_args(argv)


def _server(args: argparse.Namespace) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = args.model
    parameters.n_ctx = args.context * args.parallel
    parameters.n_parallel = args.parallel
    parameters.cpuparams.n_threads = args.threads
    parameters.cpuparams_batch.n_threads = args.threads
    parameters.cache_type_k = parameters.cache_type_v = getattr(
        xllamacpp.ggml_type, f"GGML_TYPE_{args.kv_type.upper()}"
    )
    parameters.port = 0
    parameters.cache_ram_mib = 0  # a cache of old prompts would be counted as the model's memory
    parameters.fit_params = False
    parameters.ui = False
    parameters.verbosity = _ERRORS
    return xllamacpp.Server(parameters)


def _peak_bytes() -> int:
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def main(argv: list[str]) -> None:
    """Serve the model, send `repeats` prompts, and print the measurements."""
    args = _parse(argv)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # llama.cpp may print to stdout
    begun = time.monotonic()
    try:
        server = _server(args)
    except RuntimeError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    loaded = time.monotonic() - begun
    prefill, decode = [], []
    for number in range(args.repeats):
        body = {
            "prompt": [300 + (7 * i + number) % 1000 for i in range(args.prompt)],
            "n_predict": args.decode,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=3600) as reply:
            timings = json.load(reply)["timings"]
        prefill.append(timings["prompt_per_second"])
        decode.append(timings["predicted_per_second"])
    found = {"peak_bytes": _peak_bytes(), "load_seconds": loaded, "prefill": prefill, "decode": decode}
    print(json.dumps(found), file=answers, flush=True)
    os._exit(0)  # without waiting for the server's threads


if __name__ == "__main__":
    main(sys.argv[1:])
