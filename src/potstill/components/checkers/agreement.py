"""Agreement: whether most of a teacher's answers to a prompt are the same.

Calls are compared as a whole, in any order, case and spacing ignored. Words are compared with calls, and with each
other only where they are the same words: two sentences that differ may both be right.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.normalise import normalised
from potstill.components.checkers.verdicts import PASS, Candidate, Finding, fails, unknown

__all__ = ["check_agreement", "compared_answer"]

_FEWEST = 2  # answers that must be the same


def check_agreement(candidates: Sequence[Candidate]) -> list[Finding]:
    """Pass for the answer that more than half of the answers to its prompt give, and fail for all others.

    Unknown where no answer has such a majority, and for words among a majority of other words.
    """
    said: dict[str, Counter[str]] = defaultdict(Counter)
    called: dict[str, Counter[str]] = defaultdict(Counter)
    prompts = [candidate.row.row_id for candidate in candidates]
    for prompt, candidate in zip(prompts, candidates, strict=True):
        if candidate.answer is not None:
            said[prompt][compared_answer(candidate.answer)] += 1
            called[prompt][_calls(candidate.answer)] += 1
    return [
        unknown() if each.answer is None else _finding(each.answer, said[prompt], called[prompt])
        for prompt, each in zip(prompts, candidates, strict=True)
    ]


def _finding(answer: ParsedAnswer, said: Counter[str], called: Counter[str]) -> Finding:
    total = sum(said.values())
    common, count = called.most_common(1)[0]
    if count < _FEWEST or 2 * count <= total:
        return unknown(f"no majority among {total} answers")
    if _calls(answer) != common:
        return fails(f"{count} of {total} answers are {f'calls {common}' if common else 'words without a call'}")
    same = said[compared_answer(answer)]
    return PASS if same >= _FEWEST and 2 * same > total else unknown("other words than most answers")


def _calls(answer: ParsedAnswer) -> str:
    """The calls of an answer, in one order; empty for an answer in words."""
    made = sorted(json.dumps([c.name, _plain(c.arguments)], sort_keys=True, ensure_ascii=False) for c in answer.calls)
    return ", ".join(made)


def compared_answer(answer: ParsedAnswer) -> str:
    """What an answer says, as it is compared with others: the calls, or the words where there are none."""
    return _calls(answer) or f"words: {_plain(answer.content)}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return normalised(value, ("case", "spaces"))
