"""A scripted OpenAI-compatible endpoint."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any]], tuple[int, Any]]


class Endpoint(ThreadingHTTPServer):
    """Answers POST by `script`; keeps requests, and how many were open at once."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.requests: list[tuple[str, dict[str, Any], str | None]] = []
        self.headers: list[dict[str, str]] = []  # of each request, by their names in lower case
        self.lock = threading.Lock()
        self.open = self.most_open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint = self.server
        with endpoint.lock:
            endpoint.requests.append((self.path, body, self.headers.get("Authorization")))
            endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
            endpoint.open += 1
            endpoint.most_open = max(endpoint.most_open, endpoint.open)
        status, reply = endpoint.script(body)
        with endpoint.lock:
            endpoint.open -= 1
        data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(reply, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 307:
            self.send_header("Location", reply["location"])
        if status in (429, 500):
            self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve(script: Script) -> Iterator[Endpoint]:
    """An endpoint that answers by `script` until the end of the block."""
    server = Endpoint(script)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Misbehaving(socketserver.BaseRequestHandler):
    """Answers one request per connection in a way that a client must not wait for, or must not read."""

    def handle(self) -> None:
        connection, ended = self.request, self.server.ended  # type: ignore[attr-defined]
        behaviour, _, status = self.server.behaviour.partition(" ")  # type: ignore[attr-defined]
        connection.recv(1 << 16)
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % int(status or 200)
        with suppress(OSError):
            if behaviour == "bomb":
                body = gzip.compress(bytes(8 << 20))
                connection.sendall(head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            elif behaviour == "half":
                connection.sendall(head + b"Content-Length: 1000\r\n\r\n{")
            elif behaviour == "endless":
                connection.sendall(head + b"\r\n")
                while not ended.is_set():
                    connection.sendall(b" " * (1 << 16))
            elif behaviour == "headers":
                connection.sendall(head)
                while not ended.is_set():
                    connection.sendall(b"X-Filler: " + b"x" * (1 << 16) + b"\r\n")
            elif behaviour == "trickle":
                connection.sendall(head + b"Content-Length: 1000\r\n\r\n")
                while not ended.wait(0.1):
                    connection.sendall(b" ")
            elif behaviour == "silent":
                ended.wait(30)
            else:
                assert behaviour == "closed"


@contextmanager
def serve_badly(behaviour: str) -> Iterator[str]:
    """The address of a server that misbehaves below HTTP until the end of the block.

    Args:
        behaviour: bomb, half, endless, headers, trickle, silent or closed; with a status, as in `bomb 500`.
    """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Misbehaving) as server:
        server.daemon_threads = True
        server.behaviour, server.ended = behaviour, threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.ended.set()  # type: ignore[attr-defined]
        server.shutdown()


def reply(
    content: str | None, calls: list[tuple[str, str]] | None = None, finish: str | None = "stop"
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
