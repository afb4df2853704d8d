"""Which errors of an endpoint may pass, and for how long it asks to wait."""

from __future__ import annotations

import datetime
import email.utils

import httpx2
import openai
import pytest

from potstill.components.runtimes.endpoint_reply import OddReply
from potstill.components.runtimes.endpoint_retries import LONGEST_WAIT, is_throttled, retry_after, tries_of


def status(code: int, headers: dict[str, str] | None = None, body: object = None) -> openai.APIStatusError:
    response = httpx2.Response(code, headers=headers, request=httpx2.Request("POST", "http://h/v1"))
    return openai.APIStatusError("no", response=response, body=body)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_how_long_an_endpoint_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(status(429, headers)) == seconds


def test_a_date_to_wait_for() -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    found = retry_after(status(429, {"retry-after": email.utils.format_datetime(until, usegmt=True)}))
    assert found is not None and 95 <= found <= 100


def test_what_is_tried_again() -> None:
    request = httpx2.Request("POST", "http://h/v1")
    busy, fault = tries_of(status(429)), tries_of(status(500))
    assert busy == tries_of(status(503)) == tries_of(status(529)) > fault > tries_of(OddReply("odd")) > 1
    assert fault == tries_of(status(408)) == tries_of(openai.APIConnectionError(request=request))
    assert tries_of(TimeoutError()) == tries_of(openai.APITimeoutError(request)) == 2
    for final in (400, 401, 404, 422):
        assert tries_of(status(final)) == 1
    assert tries_of(status(429, body={"code": "insufficient_quota"})) == 1
    assert tries_of(status(429, {"retry-after": str(LONGEST_WAIT)})) == busy
    assert tries_of(status(429, {"retry-after": str(LONGEST_WAIT + 1)})) == 1
    assert tries_of(ValueError()) == 1


def test_what_lowers_the_limit_on_requests_in_flight() -> None:
    assert is_throttled(status(429)) and is_throttled(status(500)) and is_throttled(status(503))
    assert not is_throttled(status(400)) and not is_throttled(status(408))
    assert not is_throttled(status(429, body={"code": "insufficient_quota"}))
