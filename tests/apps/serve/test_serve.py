"""A package behind OpenAI's API: the official client, limits, keys, and what happens when something breaks."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner
from openai import OpenAI

from chain_models import CALL
from fixtures import TOOLS
from potstill.cli.main import main
from served import NAME, Server, make_package, serving

MESSAGES: list[Any] = [{"role": "user", "content": "light on in the kitchen"}]
ENDLESS = {"model": NAME, "prompt": "<ask-endless>", "max_tokens": 100_000, "stream": True}
LONG = ("--context=100000", "--max-tokens=100000", "--parallel=1")
"""Options with which an answer takes longer than any test."""
KEY = "a-key-of-this-test"


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model=NAME, messages=MESSAGES, **more)


def call_of(message: Any) -> tuple[str, Any]:
    (call,) = message.tool_calls
    return call.function.name, json.loads(call.function.arguments)


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def metric(server: Server, line: str) -> float:
    """The value of one line of /metrics; 0 where there is none."""
    lines = httpx.get(server.url.removesuffix("/v1") + "/metrics").text.splitlines()
    return next((float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(f"{line} ")), 0.0)


# ---- OpenAI's client ----


def test_official_client_gets_a_call(client: OpenAI) -> None:
    reply = ask(client, tools=TOOLS)
    assert call_of(reply.choices[0].message) == ("set_light", {"room": "kitchen", "state": "on"})
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.model == NAME and reply.usage.completion_tokens == 5
    assert reply.choices[0].logprobs is None
    assert reply.potstill == {"decision": "answer", "reason": "no_policy", "score": None, "promise": "none"}


def test_streamed_call_is_that_of_the_whole_reply(client: OpenAI) -> None:
    with client.chat.completions.stream(model=NAME, messages=MESSAGES, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    assert call_of(final.choices[0].message) == ("set_light", {"room": "kitchen", "state": "on"})
    assert final.choices[0].finish_reason == "tool_calls"


def test_streamed_text_is_that_of_the_whole_reply(client: OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    assert whole == CALL  # without tools, a call is text
    events = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == whole
    assert events[-1].usage.completion_tokens == 5
    assert events[-2].choices[0].finish_reason == "stop"
    assert all(event.usage is None for event in ask(client, stream=True))


def test_log_probabilities_are_those_asked_for(client: OpenAI) -> None:
    for stream in (False, True):
        got = ask(client, tools=TOOLS, logprobs=True, top_logprobs=1, stream=stream)
        parts = [got] if not stream else list(got)
        tokens = [t for part in parts for c in part.choices if c.logprobs for t in c.logprobs.content]
        assert "".join(token.token for token in tokens) == CALL
        assert all(len(token.top_logprobs) == 1 and token.logprob <= 0 for token in tokens)


def test_text_completions(client: OpenAI) -> None:
    reply = client.completions.create(model=NAME, prompt="<ask-bytes>", max_tokens=9, logprobs=2)
    assert reply.choices[0].text == "é<word>"
    logs = reply.choices[0].logprobs
    assert logs is not None and logs.tokens is not None and logs.token_logprobs is not None
    assert "".join(logs.tokens) == "é<word>" and len(logs.token_logprobs) == len(logs.tokens)
    streamed = client.completions.create(model=NAME, prompt="<ask-bytes>", max_tokens=9, stream=True)
    assert "".join(event.choices[0].text for event in streamed if event.choices) == "é<word>"


def test_json_schema_is_kept(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = ask(client, response_format=wanted, max_tokens=200)
    if reply.potstill["decision"] == "answer":
        assert set(json.loads(reply.choices[0].message.content)) == {"on"}
    else:
        assert reply.potstill["reason"] == "invalid_json"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_requests_at_the_same_time_are_not_crossed(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = {"<ask-bytes>": "é<word>", "<ask-call>": CALL}

    def one(number: int) -> bool:
        prompt = list(prompts)[number % 2]
        body = {"model": NAME, "prompt": prompt, "max_tokens": 20}
        text = httpx.post(f"{server.url}/completions", json=body, timeout=60).json()["choices"][0]["text"]
        return bool(text == prompts[prompt])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


# ---- calls that must not be made ----


@pytest.mark.parametrize("stream", [False, True])
def test_call_that_does_not_fit_its_schema_is_withheld(client: OpenAI, server: Server, stream: bool) -> None:
    """llama.cpp's grammar leaves out `not` without a word, so the model can make the call."""
    tool = json.loads(json.dumps(TOOLS[0]))
    tool["function"]["parameters"]["properties"]["state"] = {"type": "string", "not": {"const": "on"}}
    before = metric(server, 'potstill_decisions_total{action="defer",reason="invalid_call"}')
    got = client.chat.completions.with_raw_response.create(
        model=NAME, messages=MESSAGES, tools=[tool], stream=stream, max_tokens=50
    )
    assert (got.headers["x-potstill-decision"], got.headers["x-potstill-reason"]) == ("defer", "invalid_call")
    parts = list(got.parse()) if stream else [got.parse()]
    for part in parts:
        for choice in part.choices:
            message = choice.delta if stream else choice.message  # type: ignore[union-attr]
            assert not message.tool_calls
    assert metric(server, 'potstill_decisions_total{action="defer",reason="invalid_call"}') == before + 1
    assert metric(server, 'potstill_repairs_total{result="failed"}') >= 1


# ---- refused requests ----


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": "a b c " * 900}]}, 400, "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            400,
            "invalid_request",
        ),
        ({"grammar": "root ::= [a]"}, 400, "unknown_parameter"),
        ({"n_probs": 5}, 400, "unknown_parameter"),
        ({"n": 2}, 400, "invalid_request"),
        ({"temperature": "hot"}, 400, "invalid_request"),
        ({"top_logprobs": 3}, 400, "invalid_request"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"$ref": "http://x"}}}]}, 400, None),
        ({"tool_choice": "required"}, 400, "invalid_request"),
        ({"tool_choice": {"type": "function", "function": {"name": "none"}}, "tools": TOOLS}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": "x" * 70_000}]}, 413, "body_size"),
    ],
)
def test_refused_request_says_why(server: Server, change: dict[str, Any], status: int, code: str | None) -> None:
    reply = httpx.post(f"{server.url}/chat/completions", json={"model": NAME, "messages": MESSAGES} | change)
    error = reply.json()["error"]
    assert (reply.status_code, code or error["code"]) == (status, error["code"])
    assert error["message"].endswith((".", "?")) and "\n" not in error["message"]
    assert "x-request-id" in reply.headers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "lights", "model": "lights"}', b"[" * 5000])
def test_body_that_is_no_request(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = httpx.post(f"{server.url}/chat/completions", content=body, headers=headers)
    assert reply.status_code == 400


def test_only_json_from_programs_on_this_machine(server: Server) -> None:
    """What a web page may send through a browser without being asked."""
    url = f"{server.url}/chat/completions"
    assert httpx.post(url, content=json.dumps({"model": NAME, "messages": MESSAGES})).status_code == 415
    assert httpx.post(url, json={}, headers={"Host": "attacker.example"}).status_code == 400


# ---- keys ----


def test_keys_are_required_where_there_are_some(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# one per line\n{KEY}-2\n")
    with serving(package, f"--keys={file}", keys=f"{KEY},") as server:
        root = server.url.removesuffix("/v1")
        for path in ("/v1/models", "/metrics", "/status"):
            assert httpx.get(root + path).status_code == 401
            assert httpx.get(root + path, headers={"Authorization": f"Bearer {KEY}-3"}).status_code == 401
        for key in (KEY, f"{KEY}-2"):
            assert httpx.get(f"{server.url}/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert httpx.get(f"{root}/healthz").status_code == httpx.get(f"{root}/readyz").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            ask(OpenAI(base_url=server.url, api_key="wrong", max_retries=0))
    assert KEY not in server.log.read_text()


def test_other_machines_need_a_key(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POTSTILL_API_KEYS", raising=False)
    result = CliRunner().invoke(main, ["serve", str(package), "--host", "0.0.0.0"])
    assert result.exit_code == 2 and "no API key is set" in result.output
    (tmp_path / "keys").write_text("short\n")
    result = CliRunner().invoke(main, ["serve", str(package), "--keys", str(tmp_path / "keys")])
    assert result.exit_code == 2 and "can be guessed" in result.output


# ---- overload, disconnects, restarts ----


def test_full_queue_answers_429_and_a_disconnect_frees_the_slot(package: Path) -> None:
    with serving(package, *LONG, "--waiting=0") as server:
        with httpx.stream("POST", f"{server.url}/completions", json=ENDLESS, timeout=60) as stream:
            chunks = stream.iter_bytes()  # a stream whose iterator is gone is closed
            next(chunks)
            full = httpx.post(f"{server.url}/chat/completions", json={"model": NAME, "messages": MESSAGES})
            assert full.status_code == 429 and int(full.headers["Retry-After"]) >= 1
            assert metric(server, "potstill_requests_active") == 1
        eventually(lambda: metric(server, "potstill_requests_active") == 0)
        # one slot only: an answer shows that llama.cpp does not decode the endless one any more
        reply = httpx.post(f"{server.url}/completions", json=ENDLESS | {"stream": False, "max_tokens": 3}, timeout=60)
        assert reply.status_code == 200
        assert metric(server, 'potstill_requests_total{path="completions",status="499"}') == 1


def test_time_limit(package: Path) -> None:
    with serving(package, *LONG, "--seconds=0.5") as server:
        reply = httpx.post(f"{server.url}/completions", json=ENDLESS | {"stream": False}, timeout=60)
        assert reply.status_code == 504 and reply.json()["error"]["code"] == "timeout"
        with pytest.raises(httpx.RemoteProtocolError):  # an answer that is not whole does not look whole
            httpx.post(f"{server.url}/completions", json=ENDLESS, timeout=60)
        eventually(lambda: metric(server, 'potstill_requests_total{path="completions",status="504"}') == 2)


def child_of(server: Server) -> int:
    found = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [int(pid) for path in found for pid in path.read_text().split()]
    return next(pid for pid in pids if b"llama_process" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_child_that_dies_is_started_again(package: Path) -> None:
    with serving(package, *LONG) as server:
        for restarts in (1, 2):
            os.kill(child_of(server), signal.SIGKILL)
            # this request meets the dead child or waits for the next one; it is answered in both cases
            with OpenAI(base_url=server.url, api_key="unused", max_retries=0, timeout=60) as client:
                assert call_of(ask(client, tools=TOOLS).choices[0].message)[0] == "set_light"
            assert metric(server, "potstill_engine_restarts") == restarts
        with httpx.stream("POST", f"{server.url}/completions", json=ENDLESS, timeout=60) as stream:
            chunks = stream.iter_bytes()
            next(chunks)
            os.kill(child_of(server), signal.SIGKILL)
            last = b"".join(chunks)[-400:]
        assert b'"code":"engine_died"' in last  # what was sent cannot be taken back, so the stream says so


def test_stop_lets_answers_end(package: Path) -> None:
    with serving(package, *LONG) as server:
        body = ENDLESS | {"max_tokens": 300}
        with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60) as stream:
            chunks = stream.iter_bytes()
            next(chunks)
            server.process.send_signal(signal.SIGTERM)
            assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
        assert server.process.wait(timeout=60) == 0


# ---- the package ----


def test_changed_package_is_not_served(chain_gguf: Path, tmp_path: Path) -> None:
    package = make_package(tmp_path, chain_gguf)
    with serving(package) as server:
        root, url = server.url.removesuffix("/v1"), f"{server.url}/chat/completions"
        body = {"model": NAME, "messages": MESSAGES, "max_tokens": 3}
        assert httpx.post(url, json=body).status_code == 200
        licence = package / "LICENSE"
        text = licence.read_text()
        licence.write_text(text + "x")
        reply = httpx.post(url, json=body)  # the very next request
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "package")
        eventually(lambda: "LICENSE has" in server.log.read_text())
        assert httpx.get(f"{root}/readyz").status_code == 503
        licence.write_text(text)
        eventually(lambda: httpx.get(f"{root}/readyz").status_code == 200)
        assert httpx.post(url, json=body).status_code == 200


def test_corrupt_package_is_not_loaded(chain_gguf: Path, tmp_path: Path) -> None:
    package = make_package(tmp_path, chain_gguf)
    model = next(package.glob("*.gguf"))
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    result = CliRunner().invoke(main, ["serve", str(package), "--port", "0"])
    assert result.exit_code == 1
    assert "the package is not served" in result.output and "has changed" in result.output


def test_folder_that_is_no_package(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", str(tmp_path)])
    assert result.exit_code == 2 and "is not a package" in result.output


def test_no_content_in_the_log(client: OpenAI, server: Server) -> None:
    secret = "pelargonium"
    client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": secret}])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": secret * 900}])
    assert secret not in server.log.read_text()
