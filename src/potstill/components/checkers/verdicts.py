"""What a checker of a teacher's answers is given, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from potstill.components.chat.tool_calls import ParsedAnswer, parse_answer
from potstill.core.errors import DataError
from potstill.core.records import Row

__all__ = ["PASS", "Candidate", "Finding", "Verdict", "Verifier", "fails", "one_by_one", "unknown"]

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that may be learnt from.

    row      the prompt and what it says is right, without the answer
    answer   the answer with its calls read; None where it is known not to be whole, so that nothing can be said of it
    """

    row: Row
    answer: ParsedAnswer | None

    @classmethod
    def of(cls, row: Row) -> Candidate:
        """The candidate of a row with an answer."""
        said, prompt = row.completion, row.model_copy(update={"completion": None})
        if said is None or row.unfinished:
            return cls(prompt, None)
        if said.tool_calls:
            return cls(prompt, ParsedAnswer(tuple(entry.call for entry in said.tool_calls), said.content or ""))
        words = row.behaviour == "answer"  # which may be JSON itself
        return cls(prompt, parse_answer(said.content or "", tools=row.tools, only_known=words))


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and the reason for it as a clause."""

    verdict: Verdict
    evidence: str | None = None


PASS = Finding("pass")


def fails(evidence: str) -> Finding:
    """The answer is wrong."""
    return Finding("fail", evidence)


def unknown(evidence: str | None = None) -> Finding:
    """The checker cannot tell whether the answer is right."""
    return Finding("unknown", evidence)


Verifier = Callable[[Sequence[Candidate]], list[Finding]]
"""Judges all answers of a split, one finding for each; it raises nothing that an answer or a row can cause."""


def one_by_one(check: Callable[[Row, ParsedAnswer], Finding]) -> Verifier:
    """A verifier that looks at each answer by itself; what it cannot judge because of a faulty row is unknown."""

    def finding(candidate: Candidate) -> Finding:
        if candidate.answer is None:
            return unknown()
        try:
            return check(candidate.row, candidate.answer)
        except DataError as error:
            return unknown(str(error))

    return lambda candidates: [finding(candidate) for candidate in candidates]
