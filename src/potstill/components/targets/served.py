"""Targets from an endpoint's log-probabilities, for a student that splits the answers into the same tokens.

If the endpoint split an answer into the same tokens as the student, each token gets the distribution that the endpoint
gave: its likeliest tokens, by the student's token ids. In any other row, each token is stored with probability 1, and a
divergence from that is plain fine-tuning on the text. The same holds for an end token without log-probabilities.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.runtimes.log_probs import AnswerToken, Candidate
from potstill.core.artifacts.training import ServedRowCounts
from potstill.core.errors import RecipeError, StepError
from potstill.core.records import Row

__all__ = ["Reason", "ServedRow", "ServedTokens", "count_rows", "require_distributions", "require_same_tokens"]

Reason = Literal["tool_calls", "no_log_probs", "other_tokens"]
_TEXT_ONLY = "set train.objective: sft to learn from the text only."
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()
_SPECIAL = b"\xff"  # the first byte of a special token, which no text contains


class ServedRow(NamedTuple):
    """Targets of a row's supervised tokens.

    ids          the likeliest token ids at each token, in any number
    log_probs    their log-probabilities (nats)
    text_only    why the endpoint's distributions are not used; None if they are
    difference   the first token that differs, if that is why
    """

    ids: list[list[int]]
    log_probs: list[list[float]]
    text_only: Reason | None = None
    difference: str = ""


class ServedTokens:
    """Finds the student's tokens by the bytes, text or ids that an endpoint gives for them.

    Raises:
        RecipeError: the bytes of the tokenizer's tokens are not known.
    """

    def __init__(self, chat: ChatFormat) -> None:
        from potstill.components.losses.vocabulary import token_bytes

        self._stops = chat.stop_ids
        try:
            self._tokens = token_bytes(json.loads(chat.tokenizer.to_str()))
        except ValueError as error:
            raise RecipeError(
                f"student.model: an endpoint's tokens are found by their bytes, and {error}. "
                f"Choose another student, or {_TEXT_ONLY}"
            ) from None
        # of ids with the same bytes, the highest one, which is what encoding gives; text tokens before special ones
        known = [(text, number) for number, text in enumerate(self._tokens) if text]
        known.sort(key=lambda entry: not entry[0].startswith(_SPECIAL))
        self._ids = {text.removeprefix(_SPECIAL): number for text, number in known}

    def targets(self, row: Row, example: Example, logprobs: Sequence[AnswerToken] | None) -> ServedRow:
        """Targets of a row, from the endpoint's log-probabilities of the answer's tokens."""
        wanted = example.ids[example.n_prompt :]
        difference = None if logprobs is None else self._difference(wanted, example.eos_supervised, logprobs)
        if logprobs is not None and difference is None:
            found = [self._distribution(number, token) for number, token in zip(wanted, logprobs, strict=False)]
            found += [{number: 0.0} for number in wanted[len(found) :]]
            return ServedRow([list(entry) for entry in found], [list(entry.values()) for entry in found])
        calls = row.completion is not None and (
            row.completion.tool_calls or "<tool_call>" in (row.completion.content or "")
        )
        reason: Reason = "tool_calls" if calls else "no_log_probs" if logprobs is None else "other_tokens"
        return ServedRow([[number] for number in wanted], [[0.0]] * len(wanted), reason, difference or "")

    def _difference(self, wanted: Sequence[int], ends: bool, logprobs: Sequence[AnswerToken]) -> str | None:
        """The first token that differs between endpoint and student; None if only the end token may differ."""
        text = wanted[:-1] if ends else wanted
        for place in range(max(len(text), len(logprobs) - ends)):
            ours = text[place] if place < len(text) else None
            theirs = logprobs[place].token if place < len(logprobs) else None
            if ours is None or theirs is None or not self._is(ours, theirs):
                return f"token {place} is {self._shown(theirs)} at the endpoint and {self._shown(ours)} to the student"
        if len(logprobs) > len(text) and not self._ends(logprobs[-1].token):
            last = self._shown(logprobs[-1].token)
            return f"token {len(text)} is {last} at the endpoint and the end of the answer to the student"
        return None

    def _distribution(self, number: int, logprobs: AnswerToken) -> dict[int, float]:
        """Log-probabilities by the student's ids. Tokens that the student does not have count as part of the rest."""
        if not self._is(number, logprobs.token):
            return {number: 0.0}  # another end token than the student's: only that the answer ends can be learnt
        found = {number: logprobs.token.log_prob}
        for other in logprobs.top:
            index = number if self._is(number, other) else self._find(other)
            if index is not None:
                found.setdefault(index, other.log_prob)
        return found

    def _is(self, number: int, named: Candidate) -> bool:
        """Whether the endpoint means the student's token `number`, or another one with the same bytes."""
        text = self._tokens[number]
        if text is None:
            return False
        if named.id is not None and not named.text:
            return named.id == number
        return named.text == text.removeprefix(_SPECIAL) and (named.id in (None, number) or not self._has(named))

    def _has(self, named: Candidate) -> bool:
        """Whether the student's token of that id has the bytes that the endpoint gives for it."""
        if named.id is None or not 0 <= named.id < len(self._tokens):
            return False
        text = self._tokens[named.id]
        return text is not None and (not named.text or named.text == text.removeprefix(_SPECIAL))

    def _find(self, named: Candidate) -> int | None:
        if self._has(named):
            return named.id
        # a server that gives tokens as text replaces an incomplete character, so its bytes are not known
        if not named.text or (named.id is None and _UNKNOWN in named.text):
            return None
        return self._ids.get(named.text)

    def _ends(self, named: Candidate) -> bool:
        """Whether the token is an end token, for which many servers give an empty text."""
        return self._find(named) in self._stops or not named.text

    def _shown(self, token: Candidate | int | None) -> str:
        if token is None:
            return "nothing"
        if isinstance(token, int):
            return f"{token} {(self._tokens[token] or b'').removeprefix(_SPECIAL).decode(errors='replace')!r}"
        name = "" if token.text is None else repr(token.text.decode(errors="replace"))
        return f"{'' if token.id is None else token.id} {name}".strip()


def count_rows(found: Iterable[ServedRow]) -> ServedRowCounts:
    """How many rows have the endpoint's distributions, and how many have only their text, by reason."""
    return ServedRowCounts.model_validate(Counter(row.text_only or "distributions" for row in found))


def require_same_tokens(rows: Sequence[Row], found: Sequence[ServedRow], where: str) -> None:
    """Raise StepError if the student splits more than half of the answers whose tokens are known into other tokens.

    Tool calls do not count: the endpoint has parsed them, and may write them differently.
    """
    others = [(row, served) for row, served in zip(rows, found, strict=True) if served.text_only == "other_tokens"]
    known = len(others) + sum(served.text_only is None for served in found)
    if 2 * len(others) <= known:
        return
    row, served = others[0]
    raise StepError(
        f"{where}: the endpoint's model has another tokenizer or template than student.model: "
        f"the student splits {len(others)} of {known} answers into other tokens. "
        f"In {row.where or f'row {row.row_id}'} {served.difference}. "
        "Choose a student with the served model's tokenizer. "
        "If it has that tokenizer and vLLM serves the model, start vLLM with --return-tokens-as-token-ids. "
        f"Or {_TEXT_ONLY}"
    )


def require_distributions(found: Sequence[ServedRow], where: str) -> None:
    """Raise StepError if more than half of the answers have no distributions."""
    counts = Counter(served.text_only for served in found)
    text_only = len(found) - counts[None]
    if 2 * text_only <= len(found):
        return
    raise StepError(
        f"{where}: {text_only} of {len(found)} answers would be learnt from their text only: "
        f"{counts['no_log_probs']} have no log-probabilities, {counts['tool_calls']} are tool calls that the endpoint "
        f"parsed, and the student splits {counts['other_tokens']} into other tokens. "
        "Use an endpoint that leaves tool calls in the text, as the student's template writes them. "
        f"Or {_TEXT_ONLY}"
    )
