"""What an error of an OpenAI-compatible endpoint means: a fault that concerns every row, or the refusal of one row."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from potstill.core.errors import TeacherError, UsageError
from potstill.core.words import printable

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAIError

__all__ = ["EndpointErrors", "RefusedRow", "is_exhausted"]

_PARAMETERS = {
    "temperature": "Change generate.temperature to a value that this model accepts",
    "top_p": "Change generate.top_p, or set generate.temperature: 0",
    "seed": "It takes no seed, which every sampled answer needs: set generate.temperature: 0",
    "max_tokens": "Change generate.max_new_tokens",
    "max_completion_tokens": "Change generate.max_new_tokens",
}
"""Parameters of a request that come from the recipe, and what to do when the endpoint rejects one."""
_PARAMETER = re.compile(rf"\b({'|'.join(_PARAMETERS)})\b")
_ABOUT_ROW = re.compile(r"context|messages|prompt is too long|content (policy|filter)|moderat|flagged", re.IGNORECASE)


class RefusedRow(Exception):
    """The endpoint does not answer one row; the message is a clause that says why."""


class EndpointErrors:
    """Explains the errors of an endpoint.

    Args:
        base_url: its address.
        model: the endpoint's name of the model.
        api_key_env: environment variable that holds the key.
        top_logprobs: number of log-probabilities that are requested at each token; None: none.
        timeout: seconds that a try may take.

    `reached` is set once the endpoint has replied.
    """

    def __init__(self, base_url: str, model: str, api_key_env: str, top_logprobs: int | None, timeout: float) -> None:
        self.base_url, self.model, self.api_key_env, self.top_logprobs = base_url, model, api_key_env, top_logprobs
        self.timeout = timeout
        self.reached = False

    def raise_for(self, error: OpenAIError) -> None:
        """Raise what an error of the client means.

        Raises:
            TeacherError: it concerns every row: address, key, money, model, or a parameter that is sent with each.
            UsageError: the endpoint has never been reached.
            RefusedRow: it concerns this row.
        """
        import openai

        reason = _reason(error)
        if isinstance(error, openai.APIStatusError):
            raise self._of_status(error, reason)
        if isinstance(error, openai.APITimeoutError) and not _not_connected(error):
            raise RefusedRow(f"there is no whole answer within {self.timeout:.0f} s")
        if _broke_off(error):
            raise RefusedRow(f"the connection breaks off before there is a reply ({reason})")
        kind = TeacherError if self.reached else UsageError  # before the first reply, the address is wrong
        advice = "Start the server, or correct teacher.base_url, then run again"
        raise kind(f"{self.base_url}: cannot be reached ({reason}). {advice}; answers so far are kept.")

    def without_logprobs(self, reason: str) -> TeacherError:
        """The error for an endpoint that does not give the log-probabilities that it is asked for."""
        return TeacherError(
            f"{self.base_url}: it does not give the log-probabilities of the {self.top_logprobs} likeliest tokens, "
            f"which train.objective.targets asks for ({reason}). llama.cpp's server gives them, and so does vLLM up to "
            "its --max-logprobs. Use such an endpoint or a smaller train.objective.targets.k; or learn from its text "
            "alone: set train.objective: sft."
        )

    def bad_logprobs(self, reason: str) -> TeacherError:
        """The error for values that are not log-probabilities."""
        return TeacherError(
            f"{self.base_url}: the values that it returns as log-probabilities are not log-probabilities: {reason}. "
            "Start vLLM with --logprobs-mode raw_logprobs. An endpoint that cannot return log-probabilities can "
            "teach by its text alone: set train.objective: sft."
        )

    def _of_status(self, error: APIStatusError, reason: str) -> TeacherError | RefusedRow:
        status, where = error.status_code, f"{self.base_url}: "
        about_row = _ABOUT_ROW.search(reason) is not None
        if 300 <= status < 400:
            return self._redirected(error)
        if status in (401, 403) and not about_row:
            return TeacherError(
                f"{where}the key is refused ({reason}). Put a valid one into the variable {self.api_key_env}."
            )
        if status == 402 or is_exhausted(error):
            return TeacherError(
                f"{where}the account has no credit left ({reason}). Add credit, or use the key of another account in "
                f"{self.api_key_env}, then run again; answers so far are kept."
            )
        if status == 404:
            return TeacherError(
                f"{where}no model {self.model!r}, or nothing at this address ({reason}). Correct teacher.model, "
                f"or teacher.base_url: most end in /v1, and {self.base_url.rstrip('/')}/models lists the models."
            )
        if status == 429:
            return TeacherError(
                f"{where}over its limit, also after waiting for minutes, or for longer than is waited for ({reason}). "
                "Lower teacher.max_concurrency or wait, then run again; answers so far are kept."
            )
        if status in (400, 422) and self.top_logprobs and "logprobs" in reason.lower():
            return self.without_logprobs(reason)
        if status in (400, 422) and not about_row and (parameter := _parameter(error, reason)):
            return TeacherError(f"{where}it does not accept {parameter} ({reason}). {_PARAMETERS[parameter]}.")
        return RefusedRow(reason)

    def _redirected(self, error: APIStatusError) -> TeacherError:
        target = urlsplit(error.response.headers.get("location", ""))
        place = printable(f"{target.scheme}://{target.hostname}") if target.hostname else "another address"
        return TeacherError(
            f"{self.base_url}: it redirects to {place}, which would receive the key and the rows. If you trust that "
            "address, set it as teacher.base_url."
        )


def is_exhausted(error: OpenAIError) -> bool:
    """Whether an account has used up its credit, so that waiting does not help."""
    return getattr(error, "code", None) == "insufficient_quota"


def _not_connected(error: OpenAIError) -> bool:
    """Whether there was no connection in time."""
    import httpx2

    return isinstance(error.__cause__, httpx2.ConnectTimeout)


def _broke_off(error: OpenAIError) -> bool:
    """Whether a connection was made, and no reply came that can be read."""
    import httpx2

    return isinstance(error.__cause__, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError)


def _parameter(error: APIStatusError, reason: str) -> str | None:
    """The parameter of every request that the endpoint rejects."""
    named = str(getattr(error, "param", None) or "")
    found = named if named in _PARAMETERS else _PARAMETER.search(reason)
    return found if found is None or isinstance(found, str) else found[1]


def _reason(error: OpenAIError) -> str:
    """What went wrong, in one line: the endpoint's own message, or the cause of a lost connection."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        text = body["message"]
    elif body:
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    else:
        text = str(error.__cause__ or error)
    status = getattr(error, "status_code", None)
    return f"{f'{status}: ' if status else ''}{printable(text).rstrip('.')}"
