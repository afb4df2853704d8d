"""Serve a GGUF file with llama.cpp, in a process of its own."""

from __future__ import annotations

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from potstill.components.runtimes import llama_process
from potstill.core.errors import StepError
from potstill.core.files import split_lines
from potstill.core.records import Message
from potstill.core.words import printable

__all__ = ["GGUFServer", "RefusedRequest"]

Array = NDArray[np.float32]

_START_SECONDS = 600.0
"""The longest time in which a model may load, however large its file is."""
_LOAD_SECONDS, _LOAD_BYTES = 8.0, 20e6
"""Processor time that loading may take on one thread: a few seconds, and one for this many bytes of the file."""
_WAIT_SECONDS = 60.0
"""Time that loading may take beyond that, because the disk or the machine is busy."""
_PROCESS_BYTES = 768 << 20  # Python, llama.cpp, the vocabulary and the compute buffers of a small model
_THREAD_BYTES = 16 << 20  # a stack, and a heap's share
_TOKEN_BYTES = 128 << 10  # KV cache and attention scores of a small model, per token of context
_TOKEN_SHARE = 256  # a model's KV cache has at most the bytes of its weights over this, per token
_REQUEST_SECONDS = 600.0
_LOG_LINES, _LOG_BYTES = 8, 4000
_FORCED = 1000.0  # a logit bias that no logit can outweigh
_TOP = b'"top_logprobs":['
_ENTRY = re.compile(rb'"id":(\d+),"token":"(?:[^"\\]|\\.)*","bytes":\[[\d,]*\],"logprob":(-?[\d.]+(?:e[-+]?\d+)?)')
# A smaller probability is not a float32, and llama.cpp gives the lowest float as its logarithm.
_LOWEST = float(np.log(np.finfo(np.float32).smallest_subnormal))


class RefusedRequest(StepError):
    """llama.cpp refuses a request; `status` is HTTP's, `reason` is llama.cpp's own."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class GGUFServer:
    """A llama.cpp server with one model, for use in a `with` statement.

    Args:
        model: the GGUF file.
        context: tokens of all slots together, divided equally among them.
        parallel: number of slots, which answer at the same time.
        threads: number of processor threads.
        kv_type: type of the KV cache.
        exact: compute attention in 32 bits. A device does not run the file like this, but an F32 file then gives its
            checkpoint's log-probabilities to 1e-5 nats; with llama.cpp's usual attention the difference is 0.03.
        alias: name of the model in the server's replies; None: the file's path.

    Raises:
        StepError: on entry, when llama.cpp cannot load the file; from any method, when the server has ended.
    """

    address: str
    """For example http://127.0.0.1:40123; OpenAI's API is under /v1."""
    api_key: str
    load_seconds: float

    def __init__(
        self,
        model: Path,
        *,
        context: int,
        parallel: int = 1,
        threads: int = 1,
        kv_type: str = "f16",
        exact: bool = False,
        alias: str | None = None,
    ) -> None:
        self.model = model
        self.parallel = parallel
        self._arguments = [str(model), f"--context={context}", f"--parallel={parallel}", f"--threads={threads}"]
        self._arguments += ["--exact"] if exact else [f"--kv-type={kv_type}"]
        self._arguments += [f"--alias={alias}"] if alias else []
        size = model.stat().st_size if model.is_file() else 0  # llama.cpp says what is wrong with another path
        self._memory = _memory_limit(size, context, threads)
        self._seconds = min(threads * (_LOAD_SECONDS + size / _LOAD_BYTES), _START_SECONDS)
        self._arguments += [f"--memory={self._memory}", f"--load-seconds={math.ceil(self._seconds)}"]

    def __enter__(self) -> Self:
        # run by path, because the imports of a package would count as the model's memory
        command = [sys.executable, "-P", llama_process.__file__, *self._arguments]
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
            stack.callback(self._stop)
            ready = self._read_line(
                min(self._seconds + _WAIT_SECONDS, _START_SECONDS), f"llama.cpp cannot serve {self.model}"
            )
            self.address, self.api_key, self.load_seconds = ready["address"], ready["api_key"], ready["load_seconds"]
            self._client = stack.enter_context(
                httpx.Client(
                    base_url=self.address,
                    headers={"Authorization": f"Bearer {self.api_key}"},
                    timeout=_REQUEST_SECONDS,
                    trust_env=False,  # a proxy from the environment cannot reach this machine
                    # the server closes a connection that was idle or had many requests, and a request at that moment
                    # fails; so each request has its own connection
                    limits=httpx.Limits(max_keepalive_connections=0),
                )
            )
            meta = self._send("GET", "/v1/models").json()["data"][0]["meta"]
            self.vocab_size, self.slot_context = int(meta["n_vocab"]), int(meta["n_ctx"])
            self._harmless = self.tokenize("a")[-1]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def wait(self) -> int:
        """Wait until the process ends, for whatever reason; returns its exit code."""
        return self._process.wait()

    def peak_rss_mb(self) -> float:
        """Peak memory of the server's process in MB (10^6 bytes), mapped file pages included."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the read below raises the error
            self._process.stdin.write(b"peak\n")
            self._process.stdin.flush()
        return float(self._read_line(_REQUEST_SECONDS, f"llama.cpp stopped while serving {self.model}")["peak_rss_mb"])

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of a text with its special tokens; `add_special` adds what the model adds to a prompt (BOS)."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return [int(i) for i in self.post("/tokenize", body)["tokens"]]

    def apply_template(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The prompt that llama.cpp renders from a conversation, up to where the assistant begins."""
        body: dict[str, Any] = {"messages": [m.for_api() for m in messages]}
        if tools:
            body["tools"] = list(tools)
        return str(self.post("/apply-template", body)["prompt"])

    def log_probs(self, ids: Sequence[int], first: int) -> Array:
        """Log-probabilities (nats) of each next token from position `first` on: (len(ids) - first, vocab_size).

        Row r is the distribution of token `first + r` given all tokens before it, over the model's whole vocabulary
        with its padding. No value is below the logarithm of the smallest float32.

        Raises:
            ValueError: `first` is not between 1 and the number of ids.
        """
        if not 1 <= first <= len(ids):
            raise ValueError(f"first must be between 1 and {len(ids)}, got {first}")
        out_SV = np.empty((len(ids) - first, self.vocab_size), np.float32)
        for row, end in enumerate(range(first, len(ids))):
            out_SV[row] = self._next_log_probs(list(ids[:end]))
        return out_SV

    def _next_log_probs(self, ids: list[int]) -> Array:
        """Distribution of the token after `ids`, (vocab_size,), from the logits before sampling."""
        body = {"prompt": ids, "n_predict": 1, "n_probs": self.vocab_size, "temperature": 0, "cache_prompt": True}
        # the sampled token does not matter, but for half a character llama.cpp gives no probabilities
        body["logit_bias"] = [[self._harmless, _FORCED]]
        content = self._send("POST", "/completion", body).content
        start = content.find(_TOP)
        # a regular expression, because json.loads takes longer for 150,000 tokens (10 MB) than llama.cpp itself
        entries = _ENTRY.findall(content, start) if start >= 0 else []
        out = np.full(self.vocab_size, np.nan, np.float32)
        if entries:
            places, values = zip(*entries, strict=True)
            out[np.array(places).astype(np.int64)] = np.maximum(np.array(values).astype(np.float64), _LOWEST)
        if np.isnan(out).any():
            given = int((~np.isnan(out)).sum())
            raise StepError(
                f"llama.cpp gave probabilities for {given} of {self.vocab_size} tokens of {self.model.name}, and all "
                "are needed. This version of xllamacpp is not supported: install one that potstill was tested with."
            )
        return out

    def ends_generation(self, token: int) -> bool:
        """Whether llama.cpp stops when the model generates this token."""
        body = {"prompt": [self._harmless], "n_predict": 1, "temperature": 0, "logit_bias": [[token, _FORCED]]}
        return bool(self.post("/completion", body)["stop_type"] == "eos")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer of one request.

        Raises:
            RefusedRequest: the server refuses the request.
            StepError: the server has gone.
        """
        reply: dict[str, Any] = self._send("POST", path, body).json()
        return reply

    def stream(self, body: dict[str, Any]) -> list[tuple[float, int]]:
        """Seconds since submission, and tokens made by then, of each piece of a streamed completion."""
        arrivals: list[tuple[float, int]] = []
        begun = time.perf_counter()
        try:
            with self._client.stream("POST", "/completion", json=body | {"stream": True}) as response:
                if response.is_error:
                    response.read()
                    raise self._refused("/completion", response)
                for line in split_lines(response.iter_bytes()):
                    now = time.perf_counter() - begun
                    event = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                    if event.get("tokens"):
                        arrivals.append((now, int(event["tokens_predicted"])))
        except httpx.HTTPError as error:
            raise self._lost(error) from None
        return arrivals

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._lost(error) from None
        if response.is_error:
            raise self._refused(path, response)
        return response

    def _refused(self, path: str, response: httpx.Response) -> RefusedRequest:
        try:
            reason = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = response.text[:200]
        text = " ".join(str(reason).split()).rstrip(".")
        message = f"llama.cpp, serving {self.model.name}, refused {path} ({response.status_code}): {text}."
        return RefusedRequest(message, response.status_code, text)

    def _lost(self, error: httpx.HTTPError) -> StepError:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return StepError(f"llama.cpp, serving {self.model.name}, does not answer ({why}).{self._log_end()}")

    def _read_line(self, seconds: float, failure: str) -> dict[str, Any]:
        """The next line of the process, or StepError with the end of its log."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise StepError(f"{failure}: it did not respond within {seconds:.0f} s.{self._log_end()}")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise StepError(f"{failure}: {self._how_it_ended()}")
        value: dict[str, Any] = json.loads(line)
        return value

    def _how_it_ended(self) -> str:
        """Sentences that say why the process may have ended, and what to do."""
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return (
                f"it took more than {math.ceil(self._seconds)} s of processor time to load, which no sound file of its "
                f"size takes.{self._log_end()} Use a file from a source that you trust, with a simple chat template."
            )
        return (
            f"the process ended with code {code}.{self._log_end()} If the log names the file, export it again; if it "
            f"names memory (bad_alloc), the file needs more than the {self._memory / 1e9:.1f} GB that it may use: use "
            "a smaller context or fewer slots; if it names the template, simplify it."
        )

    def _log_end(self) -> str:
        """The end of the server's log, as a sentence."""
        file = self._log.fileno()
        # pread, because a seek here would move the position at which the process writes
        log = os.pread(file, _LOG_BYTES, max(0, os.fstat(file).st_size - _LOG_BYTES)).decode("utf-8", "replace")
        words = " | ".join(printable(line, _LOG_BYTES) for line in log.strip().splitlines()[-_LOG_LINES:]).rstrip(".")
        return f" The end of its log: {words}." if words else ""

    def _stop(self) -> None:
        """End the process by closing its stdin, and kill it if it does not end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _memory_limit(size: int, context: int, threads: int) -> int:
    """Bytes of private memory that a sound file of this size never needs; its mapped pages are not counted.

    The weights count twice, because a backend keeps copies in another order. No model needs more than the machine has.
    """
    threads += os.cpu_count() or 1  # the server's own
    wanted = _PROCESS_BYTES + threads * _THREAD_BYTES + 2 * size + context * (_TOKEN_BYTES + size // _TOKEN_SHARE)
    return min(wanted, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
