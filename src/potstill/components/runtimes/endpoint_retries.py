"""Which errors of an endpoint may pass, how often a request is tried again, and how long it waits before that."""

from __future__ import annotations

import datetime
import email.utils
from typing import TYPE_CHECKING

from potstill.components.runtimes.endpoint_errors import is_exhausted
from potstill.components.runtimes.endpoint_reply import OddReply

if TYPE_CHECKING:
    from openai import APIStatusError

__all__ = ["LONGEST_WAIT", "is_throttled", "retry_after", "tries_of"]

LONGEST_WAIT = 900.0
"""Seconds that an endpoint may ask to wait. One that asks for more is not waited for."""
_BUSY = (429, 503, 529)
"""Statuses of a limit and of an overloaded server."""
_PASSING = (408, 409)
_TRIES_BUSY, _TRIES_FAULT, _TRIES_ODD, _TRIES_SLOW = 12, 7, 4, 2
"""Tries of a request: at a busy endpoint, so that a limit per minute is waited out; after another fault of the server
or of the connection; after a reply that cannot be read; and after one that takes too long, where the last two may be
billed."""


def tries_of(error: BaseException) -> int:
    """How often a request is tried that ends with this error; 1 where the error will not pass."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APIStatusError):
        if is_exhausted(error) or (retry_after(error) or 0.0) > LONGEST_WAIT:
            return 1
        if error.status_code in _BUSY:
            return _TRIES_BUSY
        return _TRIES_FAULT if error.status_code in _PASSING or error.status_code >= 500 else 1
    if isinstance(error, TimeoutError | APITimeoutError):
        return _TRIES_SLOW
    if isinstance(error, OddReply):
        return _TRIES_ODD
    return _TRIES_FAULT if isinstance(error, APIConnectionError) else 1


def is_throttled(error: APIStatusError) -> bool:
    """Whether an endpoint has too much to do: fewer requests must be sent at a time."""
    return not is_exhausted(error) and (error.status_code == 429 or error.status_code >= 500)


def retry_after(error: BaseException) -> float | None:
    """For how many seconds an endpoint asks to wait: Retry-After (RFC 9110), or OpenAI's retry-after-ms; None: it does
    not say."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return max(0.0, float(response.headers.get("retry-after-ms")) / 1000)
    except (TypeError, ValueError):
        pass
    given = response.headers.get("retry-after")
    try:
        return max(0.0, float(given))
    except (TypeError, ValueError):
        pass
    try:
        until = email.utils.parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    now = datetime.datetime.now(until.tzinfo)
    return max(0.0, (until - now).total_seconds())
