"""Ten thousand rows against an endpoint that misbehaves: is every row accounted for, and is none paid for twice?

    python benchmarks/hostile_endpoint.py [--rows 10000] [--kills 20] [--seed 0]

The endpoint is a local server. What it does to a row is drawn from the seed, and faults that pass come before the
answer. The client is a process of its own. It is killed with SIGKILL when the server has received numbers of requests
that are drawn from the seed, and started again with the same journal. In the end it asks for all rows once more, which
must send nothing. The exit code is 1 where a row is missing, ends otherwise than it should, or is paid for twice.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from potstill.components.runtimes import Sampling, endpoint
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.core.recipe.teacher import ApiTeacher
from potstill.core.records import Message, Row

CONCURRENCY = 8
TIMEOUT_SECONDS = 5.0
BEHAVIOURS = {
    "fine": 67.0, "no usage": 4, "parts": 4, "tool call": 4, "429 first": 2, "429 retry-after-ms first": 2,
    "429 retry-after first": 0.1, "500 first": 3, "503 first": 1, "dropped first": 2, "cut body first": 2,
    "stalls first": 0.1, "slow stream": 0.5, "wrong model": 1, "content filter": 2, "null finish": 2, "length": 2,
    "refused 400": 0.6, "surrogate": 0.3, "no choices": 0.3, "stalls": 0.1,
}  # fmt: skip
"""What the endpoint does to a row, with weights in percent."""
EXPECTED = {
    "content filter": "unfinished", "null finish": "unfinished", "length": "length", "refused 400": "refused",
    "surrogate": "refused", "no choices": "refused", "stalls": "refused",
}  # fmt: skip
"""How such a row ends; all others with `stop`."""


class Hostile(ThreadingHTTPServer):
    """Does to each row what `behaviours` says.

    asked   the requests for each row: the number of the client's process, and the Idempotency-Key
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behaviours: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = behaviours
        self.lock = threading.Lock()
        self.process = 0
        self.asked: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self.received = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed closes its connections."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Hostile
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(body["messages"][0]["content"])
        with self.server.lock:
            asked = self.server.asked[number]
            asked.append((self.server.process, self.headers["Idempotency-Key"]))
            first = len(asked) == 1
            self.server.received += 1
        behaviour = self.server.behaviours[number]
        if behaviour == "stalls" or (first and behaviour == "stalls first"):
            time.sleep(1.5 * TIMEOUT_SECONDS)
        if behaviour == "stalls" or (first and behaviour in ("dropped first", "stalls first")):
            self.close_connection = True
            return
        status, text = reply(behaviour, first)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if behaviour == "429 retry-after first":
            self.send_header("Retry-After", "1")
        elif behaviour == "429 retry-after-ms first":
            self.send_header("retry-after-ms", "20")
        self.end_headers()
        if behaviour == "slow stream":
            for place in range(0, len(data), 16):
                self.wfile.write(data[place : place + 16])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def reply(behaviour: str, first: bool) -> tuple[int, str]:
    """Status and body."""
    message: dict[str, Any] = {"role": "assistant", "content": "fine"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    whole: dict[str, Any] = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "model": "m"}
    if behaviour == "refused 400":
        return 400, json.dumps({"error": {"message": "content policy"}})
    if first and behaviour[:3] in ("429", "500", "503"):
        return int(behaviour[:3]), json.dumps({"error": {"message": "later"}})
    if behaviour == "no usage":
        whole["usage"] = None
    elif behaviour == "parts":
        message["content"] = [{"type": "text", "text": "fine"}]
    elif behaviour == "tool call":
        message |= {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}
        choice["finish_reason"] = "tool_calls"
    elif behaviour in ("content filter", "length"):
        choice["finish_reason"] = behaviour.replace(" ", "_")
    elif behaviour == "null finish":
        choice["finish_reason"] = None
    elif behaviour == "surrogate":
        message["content"] = "half \ud83d"
    elif behaviour == "no choices":
        whole["choices"] = []
    elif behaviour == "wrong model":
        whole["model"] = "another"
    text = json.dumps(whole)
    return 200, text[:40] if first and behaviour == "cut body first" else text


@contextmanager
def served(behaviours: list[str]) -> Iterator[Hostile]:
    """The server, until the end of the block."""
    server = Hostile(behaviours)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()


def journal_of(runs: Path, url: str) -> Journal:
    """The client's journal."""
    return Journal.for_step(runs / "r" / "generate-0", ApiTeacher(kind="api", model="m", base_url=url), None)


def rows_of(count: int) -> list[Row]:
    """Rows whose prompt is their number."""
    return [Row(messages=(Message(role="user", content=str(n)),)) for n in range(count)]


def client(runs: Path, url: str, count: int) -> None:
    """Ask for all rows, and write how each ended and which model answered; the process that is killed."""
    endpoint._PAUSE_SECONDS = 0.01  # pauses are not what is measured
    teacher = endpoint.EndpointRuntime(url, "m", "OPENAI_API_KEY", CONCURRENCY, timeout=TIMEOUT_SECONDS)
    answers = JournaledRuntime(teacher, journal_of(runs, url)).answer(rows_of(count), Sampling(8), "rows")
    (runs / "ends.json").write_text(json.dumps([(answer.finish_reason, answer.model) for answer in answers]))


def ended_rows(runs: Path, url: str, count: int) -> set[int]:
    """The rows whose answer or rejection the journal holds."""
    path = journal_of(runs, url).path
    if not path.exists():
        return set()
    teacher = endpoint.EndpointRuntime(url, "m", "OPENAI_API_KEY", CONCURRENCY)
    journal = journal_of(runs, url)
    number = {journal.key(asked.request): asked.rows[0] for asked in teacher.requests(rows_of(count), Sampling(8))}
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT key FROM requests WHERE state != 'asked'").fetchall()
    return {number[key] for (key,) in found}


def run_client(server: Hostile, runs: Path, count: int, kill_at: int | None) -> bool:
    """Run the client until it ends, or until the server has received so many requests; whether it was killed."""
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    command = [sys.executable, __file__, "--rows", str(count), "--client", url, "--runs", str(runs)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if kill_at is not None and server.received >= kill_at:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"the client ended with {process.returncode}")
    return process.returncode != 0


def main() -> None:
    """Ask, kill, count, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options.runs, options.client, options.rows)
        return
    draw = random.Random(options.seed)
    behaviours = draw.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()), k=options.rows)
    kills = sorted(draw.randrange(1, options.rows) for _ in range(options.kills))
    with served(behaviours) as server, tempfile.TemporaryDirectory() as folder:
        runs, begun = Path(folder), time.monotonic()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        killed = again = 0
        for kill_at in (*kills, None, None):  # twice to the end; the second time sends nothing
            ended = ended_rows(runs, url, options.rows)
            server.process += 1
            killed += run_client(server, runs, options.rows, kill_at)
            again += sum(any(by == server.process for by, _ in server.asked[n]) for n in ended)
        seconds = time.monotonic() - begun
        ends = json.loads((runs / "ends.json").read_text())
        left = options.rows - len(ended_rows(runs, url, options.rows))
    asked = server.asked
    flights = sum(len({by for by, _ in requests}) > 1 for requests in asked.values())
    keys = sum(len({key for _, key in requests}) > 1 for requests in asked.values())
    wrong = sum(EXPECTED.get(what, "stop") != found for what, (found, _) in zip(behaviours, ends, strict=True))
    models = sum(
        (model == "another") != (what == "wrong model") for what, (_, model) in zip(behaviours, ends, strict=True)
    )
    for outcome, count in Counter(found for found, _ in ends).most_common():
        print(f"{outcome:<12}{count:>8,}")
    print(f"{server.received:,} requests in {seconds:.0f} s; the client was killed {killed} times")
    print(f"{flights:,} rows were on their way at a kill and sent again, {keys:,} of them with another Idempotency-Key")
    print(f"{again:,} rows were sent again although the journal had their answer; {left:,} rows are not in the journal")
    print(f"{wrong:,} rows ended otherwise than they should; {models:,} have the wrong name of the model")
    sys.exit(bool(again or left or wrong or models or keys))


if __name__ == "__main__":
    main()
