"""An OpenAI-compatible endpoint: a real llama.cpp, and a scripted one for what can go wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoints import Endpoint, Script, reply
from fixtures import TOOLS
from potstill.components.chat.format import load_chat
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.runtimes import Answer, Sampling
from potstill.components.runtimes import endpoint as endpoint_module
from potstill.components.runtimes.endpoint import EndpointRuntime
from potstill.components.runtimes.endpoint_retries import _TRIES_BUSY
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.core.errors import TeacherError, UsageError
from potstill.core.records import Function, Message, Row, ToolCall

SAMPLING = Sampling(max_new_tokens=12)
KEY = "POTSTILL_TEST_KEY"


def user(text: str, **changes: Any) -> Row:
    return Row(messages=(Message(role="user", content=text),), **changes)


# ---- llama.cpp ----


def test_llama_cpp_answers_as_over_its_own_protocol(
    chain_model: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [user(f"lights {i}", tools=TOOLS) for i in range(3)]
    with GGUFServer(chain_model.with_suffix(".gguf"), context=2048, parallel=2) as server:
        monkeypatch.setenv(KEY, server.api_key)
        answers = EndpointRuntime(f"{server.address}/v1", "any", KEY, 2).answer(rows, SAMPLING, "test")
        expected = GGUFRuntime(server, load_chat(chain_model), 256).answer(rows, SAMPLING, "test")
        # llama.cpp took the call out of the text, the runtime put it back
        assert [parse_answer(a.text) for a in answers] == [parse_answer(call)] * 3
        assert parse_answer(call).calls[0].arguments == {"room": "kitchen", "state": "on"}
        assert [(a.finish_reason, a.prompt_tokens) for a in answers] == [("stop", a.prompt_tokens) for a in expected]
        # five tokens with the end token, which the GGUF runtime does not count
        assert [(a.completion_tokens, b.completion_tokens) for a, b in zip(answers, expected, strict=True)] == [
            (5, 4)
        ] * 3
        cut = EndpointRuntime(f"{server.address}/v1", "any", KEY, 2).answer([user("x")], Sampling(2), "test")
        assert cut[0].finish_reason == "length"
        monkeypatch.setenv(KEY, "wrong")
        with pytest.raises(TeacherError, match=rf"the key is refused \(401: .*variable {KEY}"):
            EndpointRuntime(f"{server.address}/v1", "any", KEY, 2).answer(rows, SAMPLING, "test")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:\d+/v1: cannot be reached .*Start the server"):
        EndpointRuntime(f"{server.address}/v1", "any", KEY, 2, most_tries=1).answer(rows, SAMPLING, "test")


# ---- a scripted endpoint ----


def ask(server: Endpoint, rows: list[Row], **options: Any) -> list[Answer]:
    return EndpointRuntime(server.url, "m", KEY, 2, **options).answer(rows, SAMPLING, "test")


BROKEN = '{"room": kitchen'


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (reply("Which room?"), "Which room?"),
        (reply(None), ""),
        (
            reply(None, [("f", '{"a": "é"}'), ("g", "")], "tool_calls"),
            '<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
        ),
        (
            reply("Sure.", [("f", BROKEN)], "tool_calls"),
            f'Sure.\n<tool_call>\n{{"name": "f", "arguments": {BROKEN}}}\n</tool_call>',
        ),
    ],
)
def test_answers_become_hermes_text(endpoint: Callable[[Script], Endpoint], message: dict[str, Any], text: str) -> None:
    (answer,) = ask(endpoint(lambda body: (200, message)), [user("x")])
    assert answer.text == text
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 7, 5)
    if BROKEN in text:
        assert parse_answer(answer.text).parse_error


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("tool_calls", "stop"),
        ("length", "length"),
        ("content_filter", "unfinished"),
        ("error", "unfinished"),
        ("abort", "unfinished"),
        (None, "unfinished"),
    ],
)
def test_finish_reasons(endpoint: Callable[[Script], Endpoint], reason: str | None, expected: str) -> None:
    (answer,) = ask(endpoint(lambda body: (200, reply("x", finish=reason))), [user("x")])
    assert answer.finish_reason == expected


def test_the_request_holds_the_row(endpoint: Callable[[Script], Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    server = endpoint(lambda body: (200, reply("x")))
    said = Message(role="assistant", tool_calls=(ToolCall(function=Function(name="f", arguments='{"a": 1}')),))
    row = Row(messages=(Message(role="user", content="x"), said, Message(role="tool", content="1")), tools=tuple(TOOLS))
    monkeypatch.delenv(KEY, raising=False)
    ask(server, [row])
    monkeypatch.setenv(KEY, "secret")
    EndpointRuntime(server.url, "m", KEY, 2).answer([user("x")], Sampling(9, 0.5, 0.9, 3), "test")
    (path, first, key), (_, second, other_key) = server.requests
    assert path == "/v1/chat/completions"
    assert (key, other_key) == ("Bearer none", "Bearer secret")
    assert first["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert first["tools"] == TOOLS
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.0, 12)
    assert second == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "seed": 3,
    }


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thinking_that_an_endpoint_tells_apart_is_kept(endpoint: Callable[[Script], Endpoint], key: str) -> None:
    def script(body: dict[str, Any]) -> tuple[int, Any]:
        answer = reply("4")
        answer["choices"][0]["message"][key] = " 2 + 2\n"
        return 200, answer

    (answer,) = ask(endpoint(script), [user("What is 2 + 2?")])
    assert answer.text == "<think>\n2 + 2\n</think>\n\n4"
    assert parse_answer(answer.text).content == "4"


def test_results_refer_to_the_calls_that_are_sent(endpoint: Callable[[Script], Endpoint]) -> None:
    call = {"type": "function", "function": {"name": "set_light", "arguments": "{}"}}
    for given in ("call_abc", None):
        turns = [
            {"role": "assistant", "tool_calls": [{"id": given, **call}]},
            {"role": "tool", "tool_call_id": given, "content": "done"},
        ]
        row = user("on")
        more = Row.model_validate({"messages": [*row.messages, *turns, *row.messages]})
        server = endpoint(lambda body: (200, reply("Done.")))
        ask(server, [more])
        sent = server.requests[0][1]["messages"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == (given or "call_0")


def test_answers_are_in_the_rows_order_and_concurrency_is_bounded(endpoint: Callable[[Script], Endpoint]) -> None:
    def script(body: dict[str, Any]) -> tuple[int, Any]:
        number = int(body["messages"][0]["content"])
        time.sleep(0.01 * (3 - number % 3))
        return 200, reply(str(number))

    server = endpoint(script)
    assert [a.text for a in ask(server, [user(str(i)) for i in range(9)])] == [str(i) for i in range(9)]
    assert server.most_open == 2


def test_what_is_paid_for_is_heard_of_before_an_error_is_raised(endpoint: Callable[[Script], Endpoint]) -> None:
    """The key expires at row 2 while row 3 is on its way: 0, 1 and 3 arrive, and no row after them is asked."""
    refused, on_its_way = threading.Event(), threading.Event()

    def script(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        if text == "2":
            on_its_way.wait(5)
            refused.set()
            return 401, {"error": {"message": "expired"}}
        if text == "3":
            on_its_way.set()
            refused.wait(5)
            time.sleep(0.2)
        return 200, reply(text)

    server = endpoint(script)
    heard: dict[int, str] = {}
    rows = [user(str(i), where=f"train.jsonl:{i + 1}") for i in range(8)]
    runtime = EndpointRuntime(server.url, "m", KEY, 2)
    with pytest.raises(TeacherError, match=r"the key is refused \(401: expired\)"):
        runtime.answer(rows, SAMPLING, "test", lambda pairs: heard.update((i, a.text) for i, a in pairs))
    assert heard == {0: "0", 1: "1", 3: "3"}
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (400, {"error": {"message": "content policy"}}, "400: content policy"),
        (403, {"error": {"message": "flagged by moderation"}}, "403: flagged by moderation"),
        (413, {"error": {"message": "too large"}}, "413: too large"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "bad"}]}, "422: .*messages"),
        (400, {"error": {"message": "max_tokens is too large for a context of 10 tokens"}}, "400: max_tokens"),
        (500, {"error": {"message": "oops"}}, "500: oops"),
        (200, "<html>hello</html>", "not one of OpenAI's chat completions: .*begins with '<html>hello"),
        (200, {"error": "upstream"}, "chat completions: choices: Field required"),
        (200, {"choices": []}, "chat completions: choices: List should have at least 1 item"),
        (200, {"choices": [{"message": None}]}, r"choices\.0\.message: Input should be"),
        (200, json.dumps(reply("x"))[:60], "not valid JSON"),
        (200, json.dumps(reply("X")).replace("X", "half \\ud83d"), "half of a surrogate pair"),
        (200, "[" * 100_000, "nested too deeply"),
        (200, "\x1b[2J\x1b]0;title\x07", "begins with"),
    ],
)
def test_an_odd_row_is_refused_and_the_others_are_answered(
    endpoint: Callable[[Script], Endpoint], status: int, body: Any, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSE_SECONDS", 0.001)
    server = endpoint(lambda sent: (status, body) if sent["messages"][0]["content"] == "1" else (200, reply("fine")))
    first, odd, last = ask(server, [user(str(i)) for i in range(3)], most_tries=2)
    assert first.text == last.text == "fine"
    assert (odd.text, odd.finish_reason) == ("", "refused")
    assert odd.detail and re.search(detail, odd.detail) and odd.detail.isprintable() and len(odd.detail) < 600


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"usage": None}, ("fine", 0)),
        ({"usage": {"prompt_tokens": None, "completion_tokens": "many"}}, ("fine", 0)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": -3}}, ("fine", 7)),
    ],
)
def test_counts_may_be_missing(
    endpoint: Callable[[Script], Endpoint], changes: dict[str, Any], expected: tuple[str, int]
) -> None:
    (answer,) = ask(endpoint(lambda body: (200, reply("fine") | changes)), [user("x")])
    assert (answer.text, answer.prompt_tokens) == expected
    assert answer.completion_tokens == 0


def test_content_in_parts_is_joined(endpoint: Callable[[Script], Endpoint]) -> None:
    said = reply(None)
    said["choices"][0]["message"]["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "4."},
    ]
    (answer,) = ask(endpoint(lambda body: (200, said)), [user("x")])
    assert answer.text == "<think>\n2 + 2\n</think>\n\nIt is 4."


def test_an_odd_reply_is_tried_again(endpoint: Callable[[Script], Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSE_SECONDS", 0.001)
    replies: Iterator[tuple[int, Any]] = iter([(200, "{"), (200, {"choices": []})])
    server = endpoint(lambda body: next(replies, (200, reply("at last"))))
    assert ask(server, [user("x")])[0].text == "at last"
    assert len(server.requests) == 3


def test_a_limit_per_minute_is_waited_out() -> None:
    """At an endpoint that does not say for how long to wait."""
    longest, first = endpoint_module._LONGEST_PAUSE, endpoint_module._PAUSE_SECONDS
    assert sum(min(first * 2**n, longest) for n in range(_TRIES_BUSY - 1)) > 120


@pytest.mark.parametrize(("status", "requests"), [(429, 10), (503, 10), (529, 10), (500, 7), (400, 1)])
def test_a_busy_endpoint_is_waited_for(
    endpoint: Callable[[Script], Endpoint], status: int, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSE_SECONDS", 0.001)
    busy = iter([(status, {"error": {"message": "busy context"}})] * 9)
    server = endpoint(lambda body: next(busy, (200, reply("at last"))))
    (answer,) = ask(server, [user("x")])
    assert (answer.text, len(server.requests)) == ("at last" if requests == 10 else "", requests)


def test_a_redirect_is_refused(endpoint: Callable[[Script], Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    other = endpoint(lambda body: (200, reply("stolen")))
    server = endpoint(lambda body: (307, {"location": f"{other.url}/chat/completions?key=hidden"}))
    monkeypatch.setenv(KEY, "secret")
    with pytest.raises(TeacherError, match=r"it redirects to http://127\.0\.0\.1, which") as caught:
        ask(server, [user("x")])
    assert other.requests == [] and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        ("bomb", "compressed, although"),
        ("half", "broke off"),
        ("endless", "longer than 1,024 KiB"),
        ("headers", "breaks off before there is a reply"),
        ("closed", "breaks off before there is a reply"),
        ("bomb 400", "400"),
        ("bomb 500", "500"),
        ("endless 400", "400"),
        ("half 500", "500"),
    ],
)
def test_a_reply_is_read_with_a_limit_of_size(
    misbehaving: Callable[[str], str], behaviour: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(endpoint_module, "_MOST_BYTES", 1 << 20)
    runtime = EndpointRuntime(misbehaving(behaviour), "m", KEY, 2, most_tries=1, timeout=10.0)
    (answer,) = runtime.answer([user("x")], SAMPLING, "test")
    assert answer.finish_reason == "refused" and answer.detail and detail in answer.detail


def test_a_compressed_error_still_says_what_to_do(misbehaving: Callable[[str], str]) -> None:
    with pytest.raises(TeacherError, match="the key is refused"):
        EndpointRuntime(misbehaving("bomb 401"), "m", KEY, 2, most_tries=1).answer([user("x")], SAMPLING, "test")


@pytest.mark.parametrize("behaviour", ["trickle", "silent", "trickle 500"])
def test_a_reply_is_read_with_a_limit_of_time(misbehaving: Callable[[str], str], behaviour: str) -> None:
    runtime = EndpointRuntime(misbehaving(behaviour), "m", KEY, 2, most_tries=1, timeout=1.0)
    (answer,) = runtime.answer([user("x")], SAMPLING, "test")
    assert answer.finish_reason == "refused" and answer.detail == "there is no whole answer within 1 s"


def test_passing_errors_are_tried_again(endpoint: Callable[[Script], Endpoint]) -> None:
    replies = iter([(429, {"error": {"message": "slow down"}}), (500, {"error": {"message": "oops"}})])
    server = endpoint(lambda body: next(replies, (200, reply("at last"))))
    assert ask(server, [user("x")])[0].text == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, {"error": {"message": "bad key"}}, rf"the key is refused \(401: bad key\).*{KEY}"),
        (404, {"error": {"message": "no such model"}}, r"no model 'm', .*404: no such model.*/v1/models lists"),
        (
            429,
            {"error": {"message": "quota"}},
            r"over its limit, also after waiting for minutes, .* \(429: quota\).*max_concurrency",
        ),
        (402, {"error": {"message": "insufficient credits"}}, r"no credit left \(402: insufficient credits\)\. Add"),
        (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, r"no credit left \(429: quota\)"),
        (
            400,
            {"error": {"message": "'temperature' does not support 0 with this model"}},
            r"does not accept temperature .*Change generate\.temperature",
        ),
        (422, {"detail": [{"loc": ["body", "top_p"], "msg": "bad"}]}, r"does not accept top_p"),
        (400, {"error": {"message": "bad value", "param": "max_tokens"}}, r"Change generate\.max_new_tokens"),
    ],
)
def test_lasting_errors_say_what_to_do(
    endpoint: Callable[[Script], Endpoint], status: int, body: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_PAUSE_SECONDS", 0.001)
    server = endpoint(lambda request: (status, body))
    with pytest.raises(TeacherError, match=rf"^{server.url}: (.|\n)*{told}") as caught:
        ask(server, [user("x")], most_tries=2)
    assert "\n" not in str(caught.value)


def test_only_an_endpoint_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    for url in ("http://localhost:11434/v1", "http://127.0.0.2:1/v1", "http://[::1]:8080/v1"):
        assert EndpointRuntime(url, "m", KEY, 1).require_key() == "none"
    for url in ("https://api.example.org/v1", "http://192.168.1.5/v1", "http://localhost.example.org/v1"):
        with pytest.raises(UsageError, match=f"{url}: the environment variable {KEY} is not set"):
            EndpointRuntime(url, "m", KEY, 1).answer([user("x")], SAMPLING, "test")


def test_an_endpoint_that_was_never_there_is_wrong_usage_and_one_that_is_lost_is_not(
    endpoint: Callable[[Script], Endpoint],
) -> None:
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9/v1: cannot be reached .*correct teacher\.base_url"):
        EndpointRuntime("http://127.0.0.1:9/v1", "m", KEY, 2, most_tries=1).answer([user("x")], SAMPLING, "test")
    server = endpoint(lambda body: (200, reply("fine")))
    runtime = EndpointRuntime(server.url, "m", KEY, 1, most_tries=1)
    runtime.answer([user("x")], SAMPLING, "test")
    server.server_close()
    with pytest.raises(TeacherError, match="cannot be reached"):
        runtime.answer([user("x")], SAMPLING, "test")


def test_each_try_of_a_request_has_its_idempotency_key(endpoint: Callable[[Script], Endpoint]) -> None:
    replies = iter([(500, {"error": {"message": "oops"}})])
    server = endpoint(lambda body: next(replies, (200, reply("at last"))))
    ask(server, [user("x")])
    ask(server, [user("y")])
    first, again, other = (headers["idempotency-key"] for headers in server.headers)
    assert first == again != other and len(first) == 64


def test_the_endpoint_says_which_model_has_answered(endpoint: Callable[[Script], Endpoint]) -> None:
    replies = iter([reply("a") | {"model": "small\n"}, reply("b") | {"model": 3}])
    server = endpoint(lambda body: (200, next(replies)))
    assert [ask(server, [user("x")])[0].model for _ in range(2)] == ["small", None]
