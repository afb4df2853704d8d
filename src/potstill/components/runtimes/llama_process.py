"""llama.cpp's HTTP server in a process of its own, so that its memory and its crashes are its own.

    python -m potstill.components.runtimes.llama_process MODEL
        --context N --parallel P --threads T [--kv-type K] [--exact] [--alias NAME] [--memory BYTES] [--load-seconds S]

The first line on stdout is a JSON object: `address`, `api_key` and `load_seconds`. Each line written to stdin is
answered with one more: `peak_rss_mb`, in MB of a million bytes. The process ends when stdin closes, which it also does
when the parent is killed, at any moment: also while a file of many gigabytes is loaded. llama.cpp's log goes to stderr.

A file can make llama.cpp take memory or time without end, for example by its chat template. So the process has a limit
of private memory, and a limit of processor time while it loads.

Only the standard library and xllamacpp are imported: everything else would count in the measured memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import select
import signal
import sys
import time
from typing import Any, NoReturn

_ERRORS = 1  # llama.cpp's verbosity; warnings come with nearly every request


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_process")
    parser.add_argument("model")
    parser.add_argument("--context", type=int, required=True, help="tokens of all slots together")
    parser.add_argument("--parallel", type=int, default=1, help="slots")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kv-type", default="f16", help="type of the KV cache")
    parser.add_argument("--exact", action="store_true", help="32-bit KV cache, no flash attention")
    parser.add_argument("--alias", help="name of the model in replies; by default the file's path")
    parser.add_argument("--memory", type=int, help="most bytes of private memory; the mapped file is not counted")
    parser.add_argument("--load-seconds", type=int, help="most seconds of processor time until the model is loaded")
    return parser.parse_args(argv)


def _parameters(args: argparse.Namespace, api_key: str) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = args.model
    if args.alias:
        parameters.model_alias = [args.alias]
    parameters.n_ctx = args.context
    parameters.n_parallel = args.parallel
    parameters.cpuparams.n_threads = args.threads
    parameters.cpuparams_batch.n_threads = args.threads
    parameters.port = 0  # any free one
    parameters.api_keys = [api_key]
    parameters.cache_ram_mib = 0  # a cache of old prompts would be counted as the model's memory
    parameters.fit_params = False  # run as asked or not at all
    parameters.ui = False
    parameters.verbosity = _ERRORS
    kind = "F32" if args.exact else args.kv_type.upper()
    parameters.cache_type_k = parameters.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{kind}")
    if args.exact:  # llama.cpp's usual attention rounds to 16 bits
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return parameters


def _peak_rss_mb() -> float:
    """Most memory this process ever held. Not ru_maxrss on Linux, which starts from the parent's peak."""
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            kibibytes = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        return kibibytes * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def _limit(kind: int, value: int | None) -> None:
    """Set the soft limit of this process, or lift it as far as the hard one allows."""
    hard = resource.getrlimit(kind)[1]
    limits = [each for each in (value, hard) if each is not None and each != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(limits, default=resource.RLIM_INFINITY), hard))


def _end_with_stdin() -> None:
    """Fork a process that kills this one when stdin closes.

    This process cannot do it itself: llama.cpp holds the interpreter's lock while it loads, so that no thread of
    Python's runs. Linux could send a signal when the parent dies, but it sends it when the parent's *thread* ends.
    """
    server = os.getpid()
    if os.fork():
        return
    os.closerange(1, 3)  # the parent waits for the end of the server's outputs
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    while os.getppid() == server:  # it may also end by itself
        if any(event & select.POLLHUP for _, event in stdin.poll(1000)):
            os.kill(server, signal.SIGKILL)
            break
        time.sleep(0.05)  # there may be a line that the server has not read yet
    os._exit(0)


def main(argv: list[str]) -> NoReturn:
    """Serve until stdin closes."""
    args = _parse(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes stdin
    _end_with_stdin()
    # not RLIMIT_AS, which counts the mapped file and what a GPU's driver reserves and never uses
    _limit(resource.RLIMIT_DATA, args.memory)
    _limit(resource.RLIMIT_CPU, args.load_seconds)
    # llama.cpp may print to stdout, which belongs to the parent: give it stderr, and keep the real one.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    import xllamacpp

    api_key = secrets.token_urlsafe(16)
    parameters = _parameters(args, api_key)
    begun = time.monotonic()
    try:
        server = xllamacpp.Server(parameters)
    except (RuntimeError, MemoryError) as error:
        print(error or type(error).__name__, file=sys.stderr, flush=True)
        sys.exit(1)  # the end of the process writes what llama.cpp's log still holds
    _limit(resource.RLIMIT_CPU, None)
    say(address=server.listening_address, api_key=api_key, load_seconds=round(time.monotonic() - begun, 4))
    for _ in sys.stdin:
        say(peak_rss_mb=_peak_rss_mb())
    os._exit(0)  # the server's threads may be in the middle of a request nobody waits for


if __name__ == "__main__":
    main(sys.argv[1:])
