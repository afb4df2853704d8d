"""Log-probabilities that an OpenAI-compatible endpoint returns with an answer: of each token and its alternatives.

Servers name tokens in three ways: by their bytes (OpenAI), by an additional field `id` (llama.cpp), or as a text such
as `token_id:1234` (vLLM with --return-tokens-as-token-ids).
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["AnswerToken", "Candidate", "pack_tokens", "read_tokens", "unpack_tokens"]

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_DIGITS = 5  # significant digits of a log-probability; enough to keep the rest of the mass of an almost certain token
_OVER_ONE = 1.01


class Candidate(NamedTuple):
    """A token as the endpoint names it (by `id`, by `text`, or by both) and its log-probability in nats.

    `text` may be empty where there is an id, because many servers do not show special tokens.
    """

    id: int | None
    text: bytes | None
    log_prob: float


class AnswerToken(NamedTuple):
    """One token of an answer, and the likeliest tokens at its position, with or without the token itself."""

    token: Candidate
    top: tuple[Candidate, ...]


def read_tokens(choice: Any) -> list[AnswerToken] | None:
    """The tokens of one choice of a chat completion; None where the endpoint gives no alternatives.

    Raises:
        ValueError: the values are not log-probabilities.
    """
    given = getattr(choice, "logprobs", None)
    entries = getattr(given, "content", None) or getattr(given, "refusal", None) or ()
    tokens: list[AnswerToken] = []
    for entry in entries:
        token = _candidate(entry)
        top = [_candidate(other) for other in getattr(entry, "top_logprobs", None) or ()]
        if token is None:
            return None
        tokens.append(AnswerToken(token, tuple(other for other in top if other)))
        mass = math.fsum(math.exp(min(other.log_prob, 1.0)) for other in tokens[-1].top or (token,))
        if not mass <= _OVER_ONE:
            raise ValueError(f"the probabilities of the likeliest tokens sum to {mass:.3g} at token {len(tokens)}")
    return tokens if any(token.top for token in tokens) else None


def _candidate(entry: Any) -> Candidate | None:
    log_prob, name = getattr(entry, "logprob", None), getattr(entry, "token", None) or ""
    if log_prob is None:
        return None
    if by_number := _TOKEN_ID.fullmatch(name):
        return Candidate(int(by_number[1]), None, float(log_prob))
    number, own = getattr(entry, "id", None), getattr(entry, "bytes", None)
    text = name.encode(errors="replace") if own is None else bytes(byte & 0xFF for byte in own)
    return Candidate(number if isinstance(number, int) else None, text, float(log_prob))


def pack_tokens(tokens: Sequence[AnswerToken]) -> str:
    """The tokens of an answer as a short line of ASCII."""
    value = [[_plain(token.token), *(_plain(other) for other in token.top)] for token in tokens]
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def _plain(candidate: Candidate) -> list[Any]:
    text = None if candidate.text is None else candidate.text.decode("latin-1")
    return [candidate.id, text, float(f"{candidate.log_prob:.{_DIGITS}g}")]


def unpack_tokens(packed: str) -> list[AnswerToken]:
    """Inverse of `pack_tokens`."""
    value = json.loads(zlib.decompress(base64.b85decode(packed)))
    return [AnswerToken(_whole(token), tuple(map(_whole, top))) for token, *top in value]


def _whole(plain: list[Any]) -> Candidate:
    number, text, log_prob = plain
    return Candidate(number, None if text is None else text.encode("latin-1"), log_prob)
