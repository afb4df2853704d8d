"""A GGUF file in llama.cpp: a server in a process of its own, and a runtime that answers rows with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from potstill.components.chat.format import ChatFormat
from potstill.components.runtimes import Answer, OnAnswers, Sampling, llama_process
from potstill.core.errors import StepError
from potstill.core.progress import progress_bar
from potstill.core.records import Message, Row

__all__ = ["GGUFRuntime", "GGUFServer"]

Array = NDArray[np.float32]

_START_SECONDS = 600.0
_REQUEST_SECONDS = 600.0
_LOG_LINES, _LOG_BYTES = 8, 4000
_FORCED = 1000.0  # a logit bias that no logit can outweigh
_TOP = b'"top_logprobs":['
_ENTRY = re.compile(rb'"id":(\d+),"token":"(?:[^"\\]|\\.)*","bytes":\[[\d,]*\],"logprob":(-?[\d.]+(?:e[-+]?\d+)?)')
# Below this a probability is no float32, and llama.cpp gives the lowest float as its logarithm.
_LOWEST = float(np.log(np.finfo(np.float32).smallest_subnormal))


class GGUFServer:
    """llama.cpp with one model, between `with` and its end.

    Args:
        model: the GGUF file.
        context: tokens of all slots together; each has its share.
        parallel: slots, which answer at the same time.
        threads: of the processor.
        exact: attend in 32 bits. Not how a device runs the file, but then an F32 file gives its checkpoint's
            log-probabilities to 1e-5 nats, where llama.cpp's usual attention is 0.03 away.

    Raises:
        StepError: on entry, when llama.cpp cannot load the file; from any method, when the server has gone.
    """

    address: str
    """For example http://127.0.0.1:40123; OpenAI's API is under /v1."""
    api_key: str
    load_seconds: float

    def __init__(self, model: Path, *, context: int, parallel: int = 1, threads: int = 1, exact: bool = False) -> None:
        self.model = model
        self.parallel = parallel
        self._arguments = [str(model), f"--context={context}", f"--parallel={parallel}", f"--threads={threads}"]
        self._arguments += ["--exact"] if exact else []

    def __enter__(self) -> Self:
        # Run by path: as a module, the package's imports would be measured as the model's memory.
        command = [sys.executable, "-P", llama_process.__file__, *self._arguments]
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
            stack.callback(self._stop)
            ready = self._read_line(_START_SECONDS, f"llama.cpp cannot serve {self.model}")
            self.address, self.api_key, self.load_seconds = ready["address"], ready["api_key"], ready["load_seconds"]
            self._client = stack.enter_context(
                httpx.Client(
                    base_url=self.address,
                    headers={"Authorization": f"Bearer {self.api_key}"},
                    timeout=_REQUEST_SECONDS,
                    trust_env=False,  # a proxy from the environment cannot reach this machine's own ports
                    # the server drops a connection when it has been idle, and after so many requests: a request that
                    # meets that moment fails, so each has a connection of its own
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

    def peak_rss_mb(self) -> float:
        """Most memory the server's process ever held, in MB of a million bytes (mapped file pages included)."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # reading tells what happened
            self._process.stdin.write(b"peak\n")
            self._process.stdin.flush()
        return float(self._read_line(_REQUEST_SECONDS, f"llama.cpp stopped while serving {self.model}")["peak_rss_mb"])

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of a text, special tokens in it recognised; `add_special` adds what the model adds to a prompt (BOS)."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return [int(i) for i in self.post("/tokenize", body)["tokens"]]

    def apply_template(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The prompt llama.cpp makes of a conversation, up to where the assistant begins to speak."""
        body: dict[str, Any] = {"messages": [m.for_api() for m in messages]}
        if tools:
            body["tools"] = list(tools)
        return str(self.post("/apply-template", body)["prompt"])

    def log_probs(self, ids: Sequence[int], first: int) -> Array:
        """Log-probabilities (nats) of each next token from position `first` on: (len(ids) - first, vocab_size).

        Row r is the distribution of token `first + r` given all before it, over the model's whole vocabulary, padding
        included; nothing is below the log of the smallest float32.

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
        """Distribution of the token after `ids`, (vocab_size,); llama.cpp takes it from the logits before sampling."""
        body = {"prompt": ids, "n_predict": 1, "n_probs": self.vocab_size, "temperature": 0, "cache_prompt": True}
        # The token drawn does not matter, but when it is half a character llama.cpp leaves the probabilities out.
        body["logit_bias"] = [[self._harmless, _FORCED]]
        content = self._send("POST", "/completion", body).content
        start = content.find(_TOP)
        # A regular expression, because json.loads would take longer over 150,000 tokens (10 MB) than llama.cpp itself.
        entries = _ENTRY.findall(content, start) if start >= 0 else []
        out = np.full(self.vocab_size, np.nan, np.float32)
        if entries:
            places, values = zip(*entries, strict=True)
            out[np.array(places).astype(np.int64)] = np.maximum(np.array(values).astype(np.float64), _LOWEST)
        if np.isnan(out).any():
            given = int((~np.isnan(out)).sum())
            raise StepError(
                f"llama.cpp gave the probabilities of {given} of {self.vocab_size} tokens of {self.model.name}; all "
                "are needed. This version of xllamacpp answers in another way: install one potstill was tested with."
            )
        return out

    def ends_generation(self, token: int) -> bool:
        """Whether llama.cpp stops when the model says this token."""
        body = {"prompt": [self._harmless], "n_predict": 1, "temperature": 0, "logit_bias": [[token, _FORCED]]}
        return bool(self.post("/completion", body)["stop_type"] == "eos")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer of one request.

        Raises:
            StepError: the server refuses the request, or has gone.
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
                for line in response.iter_lines():
                    now = time.perf_counter() - begun
                    event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
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

    def _refused(self, path: str, response: httpx.Response) -> StepError:
        try:
            reason = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = response.text[:200]
        told = " ".join(str(reason).split()).rstrip(".")
        return StepError(f"llama.cpp, serving {self.model.name}, refused {path} ({response.status_code}): {told}.")

    def _lost(self, error: httpx.HTTPError) -> StepError:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return StepError(f"llama.cpp, serving {self.model.name}, does not answer ({why}).{self._told()}")

    def _read_line(self, seconds: float, failure: str) -> dict[str, Any]:
        """The next line of the process, or StepError with the end of its log."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise StepError(f"{failure}: no sign of life in {seconds:.0f} s.{self._told()}")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise StepError(
                f"{failure}: the process ended with code {self._process.returncode}.{self._told()} If that names the "
                "file, export it again; if memory, take a smaller context or fewer slots; if the template, simplify it."
            )
        value: dict[str, Any] = json.loads(line)
        return value

    def _told(self) -> str:
        """The end of the server's log, as a sentence."""
        file = self._log.fileno()
        # pread, because the process writes where a seek of this side would have left it
        log = os.pread(file, _LOG_BYTES, max(0, os.fstat(file).st_size - _LOG_BYTES)).decode("utf-8", "replace")
        words = " | ".join(" ".join(line.split()) for line in log.strip().splitlines()[-_LOG_LINES:]).rstrip(".")
        return f" Its last words: {words}." if words else ""

    def _stop(self) -> None:
        """Let the process end by closing its stdin, and make sure of it."""
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


class GGUFRuntime:
    """Answers rows with a served GGUF, one request a row.

    Prompts go as token ids, and answers come back as token ids and are decoded by the checkpoint's tokenizer: so a
    difference from `HFRuntime` is a difference of the models.

    Args:
        server: entered already.
        chat: the checkpoint's tokenizer and template.
        context: most tokens of prompt and answer together.
        parallel: requests at the same time; the server's slots.
    """

    def __init__(self, server: GGUFServer, chat: ChatFormat, context: int, parallel: int = 1) -> None:
        self.server = server
        self.chat = chat
        self.context = min(context, server.slot_context)
        self.parallel = parallel

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`.

        Greedy answers can differ between two calls where two tokens are all but equally likely: llama.cpp's last bits
        depend on what else it computes at the time.
        """
        answers: dict[int, Answer] = {}
        with progress_bar(label, len(rows)) as ticker, ThreadPoolExecutor(self.parallel) as pool:
            futures = {pool.submit(self._answer, row, sampling): index for index, row in enumerate(rows)}
            try:
                for future in as_completed(futures):
                    index = futures[future]
                    answers[index] = future.result()
                    if on_answers:
                        on_answers([(index, answers[index])])
                    ticker.advance()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [answers[index] for index in range(len(rows))]

    def _answer(self, row: Row, sampling: Sampling) -> Answer:
        prompt = self.chat.prompt_ids(row)
        room = min(sampling.max_new_tokens, self.context - len(prompt))
        if room <= 0:
            return Answer("", "length", len(prompt), 0, 0.0)
        body = {
            "prompt": prompt,
            "n_predict": room,
            "return_tokens": True,
            "cache_prompt": True,
            "samplers": ["temperature", "top_p"],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": _row_seed(row, sampling.seed),
        }
        begun = time.monotonic()
        reply = self.server.post("/completion", body)
        seconds = time.monotonic() - begun
        tokens = [int(i) for i in reply["tokens"]]
        end = next((i for i, token in enumerate(tokens) if token in self.chat.stop_ids), None)
        if end is None and reply["stop_type"] == "eos":
            end = len(tokens) - 1  # llama.cpp ends also at a token that only it takes for an end
        ids = tokens[:end]
        finish = "length" if end is None else "stop"
        return Answer(self.chat.decode(ids, after=prompt), finish, len(prompt), len(ids), seconds)

    def log_probs(self, ids: Sequence[int], first: int) -> Array:
        """As `HFRuntime.log_probs`: (len(ids) - first, V) over the tokenizer's V ids, without the model's padding."""
        log_probs_SV = self.server.log_probs(ids, first)[:, : self.chat.vocab_size]
        total_S1 = np.log(np.exp(log_probs_SV.astype(np.float64)).sum(axis=1, keepdims=True))
        normalised_SV: Array = (log_probs_SV - total_S1).astype(np.float32)
        return normalised_SV


def _row_seed(row: Row, seed: int) -> int:
    """32 bits, other for each row."""
    return int(hashlib.sha256(f"{seed}\0{row.row_id}".encode()).hexdigest()[:8], 16)
