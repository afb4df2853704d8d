"""What an endpoint says of its tokens: asked for where it is wanted, read in three dialects, missed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints import Endpoint, Script, reply
from potstill.components.runtimes import Answer, Sampling
from potstill.components.runtimes.endpoint import EndpointRuntime
from potstill.components.runtimes.log_probs import AnswerToken, Candidate, pack_tokens, unpack_tokens
from potstill.core.errors import TeacherError
from potstill.core.records import Message, Row

SAMPLING = Sampling(max_new_tokens=12)
START = Callable[[Script], Endpoint]


def rows(count: int = 1) -> list[Row]:
    return [Row(messages=(Message(role="user", content=str(i)),)) for i in range(count)]


def ask(server: Endpoint, asked: list[Row], top: int | None = 2, concurrency: int = 2) -> list[Answer]:
    return EndpointRuntime(server.url, "m", "NO_SUCH_KEY", concurrency, top_logprobs=top).answer(asked, SAMPLING, "t")


def entry(token: str, log_prob: float, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": log_prob, "bytes": list(token.encode()), **more}


def told(*entries: dict[str, Any], content: str | None = "Hi", key: str = "content", **changes: Any) -> dict[str, Any]:
    value = reply(content, **changes)
    value["choices"][0]["logprobs"] = {key: list(entries)}
    return value


def test_log_probs_are_asked_for_only_where_they_are_wanted(endpoint: START) -> None:
    server = endpoint(lambda body: (200, told(entry("Hi", -0.1, top_logprobs=[entry("Hi", -0.1)]))))
    assert ask(server, rows(), None)[0].tokens is None
    assert ask(server, rows(), 7)[0].tokens is not None
    plain, asking = (body for _, body, _ in server.requests)
    assert asking == plain | {"logprobs": True, "top_logprobs": 7}


@pytest.mark.parametrize(
    ("given_as", "read_as"),
    [
        (entry("é", -0.25), Candidate(None, "é".encode(), -0.25)),
        (entry("\ufffd", -0.25, bytes=[0xC3]), Candidate(None, b"\xc3", -0.25)),
        (entry("Hi", -0.25, bytes=None), Candidate(None, b"Hi", -0.25)),
        (entry("Hi", -0.25, id=9), Candidate(9, b"Hi", -0.25)),
        (entry("", -0.25, id=2, bytes=[]), Candidate(2, b"", -0.25)),
        (entry("token_id:41", -0.25), Candidate(41, None, -0.25)),
        (entry("token_id:41", -0.25, bytes=[239, 191, 189]), Candidate(41, None, -0.25)),
    ],
)
@pytest.mark.parametrize("key", ["content", "refusal"])
def test_tokens_are_named_as_servers_name_them(
    endpoint: START, given_as: dict[str, Any], read_as: Candidate, key: str
) -> None:
    one = given_as | {"top_logprobs": [given_as, entry("no", -3.0), entry("?", -9999.0)]}
    server = endpoint(lambda body: (200, told(one, key=key)))
    packed = ask(server, rows())[0].tokens
    assert packed is not None
    others = Candidate(None, b"no", -3.0), Candidate(None, b"?", -9999.0)
    assert unpack_tokens(packed) == [AnswerToken(read_as, (read_as, *others))]


@given(
    st.lists(
        st.lists(
            st.builds(
                Candidate, st.none() | st.integers(0, 300_000), st.none() | st.binary(max_size=9), st.floats(-99, 0)
            ),
            min_size=1,
        )
    )
)
def test_packed_tokens_come_back(candidates: list[list[Candidate]]) -> None:
    tokens = [AnswerToken(first, tuple(rest)) for first, *rest in candidates]
    packed = pack_tokens(tokens)
    assert packed.isascii() and '"' not in packed and "\\" not in packed
    back = unpack_tokens(packed)
    assert [len(s.top) for s in back] == [len(s.top) for s in tokens]
    flat = [[candidate for s in side for candidate in (s.token, *s.top)] for side in (tokens, back)]
    for before, after in zip(*flat, strict=True):
        assert after[:2] == before[:2]
        assert after.log_prob == pytest.approx(before.log_prob, rel=1e-4, abs=0)


@pytest.mark.parametrize(
    "silent",
    [
        reply("Hi"),
        told(content="Hi"),
        told(entry("Hi", -0.1, top_logprobs=[])),  # the chosen token alone is no distribution
        told({"token": "Hi", "bytes": None, "top_logprobs": []}),
    ],
)
def test_an_endpoint_without_log_probs_is_told_at_its_first_answer(endpoint: START, silent: dict[str, Any]) -> None:
    server = endpoint(lambda body: (200, silent))
    with pytest.raises(TeacherError, match=r"does not give .* 2 likeliest .*train\.objective: sft") as caught:
        ask(server, rows(9), concurrency=1)
    assert str(caught.value).startswith(server.url) and "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_tool_calls_and_later_answers_may_come_without_them(endpoint: START) -> None:
    spoken = told(entry("Hi", -0.1, top_logprobs=[entry("Hi", -0.1)]))
    replies = iter([reply(None, [("f", "{}")], "tool_calls"), reply(None), spoken, reply("Hi")])
    answers = ask(endpoint(lambda body: (200, next(replies))), rows(4), concurrency=1)
    assert [a.tokens is not None for a in answers] == [False, False, True, False]


def test_what_are_no_log_probs_are_refused(endpoint: START) -> None:
    logits = [entry("Hi", 12.5), entry("no", 3.0)]
    with pytest.raises(TeacherError, match=r"sum to .* at token 1.*--logprobs-mode raw_logprobs"):
        ask(endpoint(lambda body: (200, told(entry("Hi", 12.5, top_logprobs=logits)))), rows())


def test_a_refusal_of_log_probs_says_so(endpoint: START) -> None:
    body = {"error": {"message": "Requested sample logprobs of 20, which is greater than max allowed: 5"}}
    with pytest.raises(TeacherError, match=r"max allowed: 5\).*--max-logprobs.*smaller train\.objective\.targets\.k"):
        ask(endpoint(lambda request: (400, body)), rows(), 20)
