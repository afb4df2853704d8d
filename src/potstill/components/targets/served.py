"""Targets from an endpoint's log-probabilities: its tokens are the student's tokens, or they teach nothing but text.

Of a row whose answer the endpoint has cut into the very tokens that the student reads, each token has the distribution
that the endpoint gave: its likeliest tokens, by the ids that the student knows them by. Of any other row each token is
stored as certain, and a divergence from that is plain fine-tuning on the text. So is an end token of which the endpoint
says nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.runtimes.log_probs import Candidate, SaidToken
from potstill.core.errors import RecipeError, StepError
from potstill.core.records import Row

__all__ = ["Reason", "ServedRow", "ServedTokens", "count_rows", "require_distributions", "require_same_tokens"]

Reason = Literal["tool_calls", "no_log_probs", "other_tokens"]
_TEXT_ALONE = "learn from the text alone: set train.objective: sft."
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()
_SPECIAL = b"\xff"  # begins the bytes of a special token: no text has it


class ServedRow(NamedTuple):
    """Targets of a row's supervised tokens: likeliest ids and their log-probabilities (nats), in any number.

    `text_alone` says why the endpoint's distributions could not be taken, and `difference` where the tokens part.
    """

    ids: list[list[int]]
    log_probs: list[list[float]]
    text_alone: Reason | None = None
    difference: str = ""


class ServedTokens:
    """The student's tokens, found by what an endpoint calls them.

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
                f"student.model: an endpoint's tokens are found by their bytes, and {error}. Choose another student, "
                f"or {_TEXT_ALONE}"
            ) from None
        # of ids with the same bytes the highest, which is the one that texts give; text before special tokens
        known = [(own, number) for number, own in enumerate(self._tokens) if own]
        known.sort(key=lambda entry: not entry[0].startswith(_SPECIAL))
        self._ids = {own.removeprefix(_SPECIAL): number for own, number in known}

    def targets(self, row: Row, example: Example, said: Sequence[SaidToken] | None) -> ServedRow:
        """Targets of a row, given what the endpoint said of its answer's tokens."""
        wanted = example.ids[example.n_prompt :]
        difference = None if said is None else self._difference(wanted, example.eos_supervised, said)
        if said is not None and difference is None:
            found = [self._distribution(number, token) for number, token in zip(wanted, said, strict=False)]
            found += [{number: 0.0} for number in wanted[len(found) :]]
            return ServedRow([list(entry) for entry in found], [list(entry.values()) for entry in found])
        calls = row.completion is not None and (
            row.completion.tool_calls or "<tool_call>" in (row.completion.content or "")
        )
        reason: Reason = "tool_calls" if calls else "no_log_probs" if said is None else "other_tokens"
        return ServedRow([[number] for number in wanted], [[0.0]] * len(wanted), reason, difference or "")

    def _difference(self, wanted: Sequence[int], ends: bool, said: Sequence[SaidToken]) -> str | None:
        """Where the endpoint's tokens are not the student's; None where they are, but for the end token."""
        text = wanted[:-1] if ends else wanted
        for place in range(max(len(text), len(said) - ends)):
            ours = text[place] if place < len(text) else None
            theirs = said[place].token if place < len(said) else None
            if ours is None or theirs is None or not self._is(ours, theirs):
                return f"token {place} is {self._shown(theirs)} at the endpoint and {self._shown(ours)} to the student"
        if len(said) > len(text) and not self._ends(said[-1].token):
            return f"token {len(text)} is {self._shown(said[-1].token)} at the endpoint and the end to the student"
        return None

    def _distribution(self, number: int, said: SaidToken) -> dict[int, float]:
        """Log-probabilities by the student's ids; tokens that it has not are left to the mass of all others."""
        if not self._is(number, said.token):
            return {number: 0.0}  # another end token than the student's: that it ends is all there is to learn
        found = {number: said.token.log_prob}
        for other in said.top:
            index = number if self._is(number, other) else self._find(other)
            if index is not None:
                found.setdefault(index, other.log_prob)
        return found

    def _is(self, number: int, named: Candidate) -> bool:
        """Whether the endpoint means the student's token `number`; of ids with the same bytes it may mean any."""
        own = self._tokens[number]
        if own is None:
            return False
        if named.id is not None and not named.text:
            return named.id == number
        return named.text == own.removeprefix(_SPECIAL) and (named.id in (None, number) or not self._has(named))

    def _has(self, named: Candidate) -> bool:
        """Whether the token's id has in the student's vocabulary the bytes that the endpoint gives it."""
        if named.id is None or not 0 <= named.id < len(self._tokens):
            return False
        own = self._tokens[named.id]
        return own is not None and (not named.text or named.text == own.removeprefix(_SPECIAL))

    def _find(self, named: Candidate) -> int | None:
        if self._has(named):
            return named.id
        # a server that shows tokens as text shows a piece of a character so, and which piece is not said
        if not named.text or (named.id is None and _UNKNOWN in named.text):
            return None
        return self._ids.get(named.text)

    def _ends(self, named: Candidate) -> bool:
        """Whether it is an end token; many servers show those as no text at all."""
        return self._find(named) in self._stops or not named.text

    def _shown(self, token: Candidate | int | None) -> str:
        if token is None:
            return "nothing"
        if isinstance(token, int):
            return f"{token} {(self._tokens[token] or b'').removeprefix(_SPECIAL).decode(errors='replace')!r}"
        name = "" if token.text is None else repr(token.text.decode(errors="replace"))
        return f"{'' if token.id is None else token.id} {name}".strip()


def count_rows(found: Iterable[ServedRow]) -> dict[str, int]:
    """How many rows have the endpoint's distributions, and how many are learnt from their text alone, by reason."""
    return dict(Counter(f"text_alone_{row.text_alone}" if row.text_alone else "distributions" for row in found))


def require_same_tokens(rows: Sequence[Row], found: Sequence[ServedRow], where: str) -> None:
    """Raise StepError where, of the answers whose tokens are known, more than half are other tokens to the student.

    Tool calls that the endpoint has parsed, and so may write in another way, do not count.
    """
    others = [(row, served) for row, served in zip(rows, found, strict=True) if served.text_alone == "other_tokens"]
    known = len(others) + sum(served.text_alone is None for served in found)
    if 2 * len(others) <= known:
        return
    row, served = others[0]
    raise StepError(
        f"{where}: the endpoint's model has another tokenizer or template than student.model: {len(others)} of "
        f"{known} answers are other tokens to the student. In {row.where or f'row {row.row_id}'} "
        f"{served.difference}. Choose a student with the served model's tokenizer; if it has it, and vLLM serves it, "
        f"start that with --return-tokens-as-token-ids; or {_TEXT_ALONE}"
    )


def require_distributions(found: Sequence[ServedRow], where: str) -> None:
    """Raise StepError where more than half of the answers have no distributions at all."""
    counts = Counter(served.text_alone for served in found)
    alone = len(found) - counts[None]
    if 2 * alone <= len(found):
        return
    raise StepError(
        f"{where}: {alone} of {len(found)} answers would be learnt from their text alone: of {counts['no_log_probs']} "
        f"the endpoint gives no log-probabilities, {counts['tool_calls']} are tool calls that it has parsed, and "
        f"{counts['other_tokens']} are other tokens to the student. An endpoint that leaves tool calls in the text, as "
        f"the student's template writes them, gives those of all; or {_TEXT_ALONE}"
    )
