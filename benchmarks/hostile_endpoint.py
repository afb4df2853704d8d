"""Ten thousand rows against an endpoint that misbehaves: is every row accounted for, and is none paid for twice?

    python benchmarks/hostile_endpoint.py [--rows 10000] [--seed 0]

The endpoint is a local server. What it does to a row is drawn from the seed, and faults that pass come before the
answer. The rows are asked in two calls with one journal, the second of which must send nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from potstill.components.runtimes import Sampling, endpoint
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journaled import JournaledRuntime
from potstill.core.recipe.teacher import ApiTeacher
from potstill.core.records import Message, Row

BEHAVIOURS = {
    "fine": 70, "no usage": 4, "parts": 4, "tool call": 4, "429 first": 3, "500 first": 3, "cut body first": 3,
    "content filter": 2, "null finish": 2, "length": 2, "refused 400": 1, "surrogate": 1, "no choices": 1,
}  # fmt: skip
"""What the endpoint does to a row, with weights in percent."""
EXPECTED = {
    "content filter": "unfinished", "null finish": "unfinished", "length": "length", "refused 400": "refused",
    "surrogate": "refused", "no choices": "refused",
}  # fmt: skip
"""How such a row ends; all others with `stop`."""


class Hostile(ThreadingHTTPServer):
    """Does to each row what `behaviours` says."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behaviours: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = behaviours
        self.lock = threading.Lock()
        self.asked: Counter[int] = Counter()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Hostile
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(body["messages"][0]["content"])
        with self.server.lock:
            self.server.asked[number] += 1
            first = self.server.asked[number] == 1
        status, text = reply(self.server.behaviours[number], first)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def reply(behaviour: str, first: bool) -> tuple[int, str]:
    """Status and body."""
    message: dict[str, Any] = {"role": "assistant", "content": "fine"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    whole: dict[str, Any] = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    if behaviour == "refused 400":
        return 400, json.dumps({"error": {"message": "content policy"}})
    if first and behaviour in ("429 first", "500 first"):
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


def main() -> None:
    """Ask, count, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    behaviours = draw.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()), k=options.rows)
    rows = [Row(messages=(Message(role="user", content=str(n)),)) for n in range(options.rows)]
    endpoint._PAUSE_SECONDS = 0.001  # pauses are not what is measured
    with served(behaviours) as server, tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        teacher = ApiTeacher(kind="api", model="m", base_url=url)
        journal = Journal.for_step(Path(folder) / "runs" / "r" / "generate-0", teacher, None)
        runtime = JournaledRuntime(endpoint.EndpointRuntime(url, "m", "OPENAI_API_KEY", 8), journal)
        begun = time.monotonic()
        answers = runtime.answer(rows, Sampling(8), "rows")
        seconds, sent = time.monotonic() - begun, server.asked.total()
        again = runtime.answer(rows, Sampling(8), "rows again")
        sent_again = server.asked.total() - sent
    ends = [
        (EXPECTED.get(what, "stop"), answer.finish_reason) for what, answer in zip(behaviours, answers, strict=True)
    ]
    for outcome, count in Counter(found for _, found in ends).most_common():
        print(f"{outcome:<12}{count:>8,}")
    tries = sum(server.asked[n] - 1 for n in range(options.rows))
    print(
        f"{sent:,} requests in {seconds:.0f} s, {tries:,} of them tries after a fault; {sent_again:,} when asked again"
    )
    wrong = sum(expected != found for expected, found in ends)
    missing = sum(server.asked[n] == 0 for n in range(options.rows))
    print(
        f"{wrong:,} rows ended otherwise than they should, {missing:,} were not asked, same answers: {again == answers}"
    )


if __name__ == "__main__":
    main()
