"""How sure a model is of an answer, from the log-probabilities of the answer's tokens.

A score is higher for a surer answer. All are in nats and need one pass of decoding, so they cost nothing beyond the
answer. Which one separates right from wrong answers best depends on the task: `curves.choose_score` finds out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from potstill.core.artifacts.policy import ScoreName
from potstill.core.records import Call

__all__ = ["SCORES", "ScoredToken", "answer_bearing", "score_answer"]


class ScoredToken(NamedTuple):
    """A token of an answer.

    text      its bytes, which may be a part of a character; empty for a special token
    log_prob  natural logarithm of its probability at temperature 1
    margin    difference between the log-probabilities of the token and the likeliest other one, in nats
    """

    text: bytes
    log_prob: float
    margin: float


def _mean(tokens: Sequence[ScoredToken], bearing: Sequence[ScoredToken]) -> float:
    return math.fsum(token.log_prob for token in tokens) / len(tokens)


def _total(tokens: Sequence[ScoredToken], bearing: Sequence[ScoredToken]) -> float:
    return math.fsum(token.log_prob for token in tokens)


def _minimum(tokens: Sequence[ScoredToken], bearing: Sequence[ScoredToken]) -> float:
    return min(token.log_prob for token in tokens)


def _margin(tokens: Sequence[ScoredToken], bearing: Sequence[ScoredToken]) -> float:
    return min(token.margin for token in bearing)


SCORES: dict[ScoreName, Callable[[Sequence[ScoredToken], Sequence[ScoredToken]], float]] = {
    "mean": _mean,
    "total": _total,
    "minimum": _minimum,
    "margin": _margin,
}
"""By name: a score of all tokens of an answer, and of those that bear it. `mean` and `total` are of the tokens'
log-probabilities, `minimum` is the least likely token's, and `margin` is the smallest lead over the second choice among
the tokens that bear the answer."""


def score_answer(tokens: Sequence[ScoredToken], calls: Sequence[Call]) -> dict[ScoreName, float]:
    """Every score of an answer; empty for an answer without tokens."""
    if not tokens:
        return {}
    bearing = answer_bearing(tokens, calls)
    return {name: score(tokens, bearing) for name, score in SCORES.items()}


def answer_bearing(tokens: Sequence[ScoredToken], calls: Sequence[Call]) -> list[ScoredToken]:
    """The tokens that make the difference between one answer and another.

    Of calls, these are the tokens of the tools' names and of the arguments' values, not those of keys and markup. Of
    words, they are the tokens with a letter or a digit; a part of a character counts as one. All tokens, where there
    are no such tokens.
    """
    text = b"".join(token.text for token in tokens)
    spans = list(_spans(text, calls))
    found, start = [], 0
    for token in tokens:
        end = start + len(token.text)
        if any(first < end and start < last for first, last in spans) if calls else _is_word(token.text):
            found.append(token)
        start = end
    return found or list(tokens)


def _is_word(text: bytes) -> bool:
    return any(byte >= 0x80 or chr(byte).isalnum() for byte in text)


def _spans(text: bytes, calls: Sequence[Call]) -> Iterator[tuple[int, int]]:
    """Where the names and the values of calls stand in a text, each searched after the one before it."""
    at = 0
    for call in calls:
        for part in (call.name.encode(), *map(_written, _leaves(call.arguments))):
            place = text.find(part, at)
            if place >= 0:
                yield place, place + len(part)
                at = place + len(part)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif value != "":
        yield value


def _written(value: Any) -> bytes:
    """A value as it stands in JSON; of a text, what is between the quotes."""
    text = json.dumps(value, ensure_ascii=False)
    return (text[1:-1] if isinstance(value, str) else text).encode(errors="replace")
