"""Verify answers before they are learnt from: each checker says pass, fail or unknown of each of them.

A checker fails an answer only on evidence that it is wrong. Where a checker does not apply, or its evidence is weak,
it says unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.agreement import check_agreement
from potstill.components.checkers.copied import check_values
from potstill.components.checkers.judge import judge_answer
from potstill.components.checkers.turns import call_problem
from potstill.components.checkers.verdicts import PASS, Candidate, Finding, Verifier, fails, one_by_one, unknown
from potstill.core.recipe.generate import AnswerChecker
from potstill.core.records import Row
from potstill.core.tools import argument_validators

__all__ = ["VERIFIERS", "verify_answers"]


def _check_calls(row: Row, answer: ParsedAnswer) -> Finding:
    """Whether the calls can be read, name tools of the row, and fit their schemas; unknown without calls or tools."""
    if not row.tools:
        return unknown()
    if answer.parse_error is not None:
        return fails(f"a call cannot be read: {answer.parse_error}")
    validators = argument_validators(row.tools, row.name)
    problem = next((found for call in answer.calls if (found := call_problem(call, validators))), None)
    if problem is not None:
        return fails(f"the answer {problem}")
    return PASS if answer.calls else unknown()


def _check_gold(row: Row, answer: ParsedAnswer) -> Finding:
    """Whether the answer is right by the row's gold and behaviour; unknown where they do not say what is right.

    A question or a refusal without a pattern is known by common phrases. They can show that an answer is right, and not
    that it is wrong: it may be in other words, or in another language. A call in its place is wrong.
    """
    found = judge_answer(answer, row)
    if found.exact is None:
        return unknown()
    if found.exact:
        return PASS
    has_pattern = row.gold is not None and row.gold.match is not None
    if row.behaviour in ("clarify", "refuse") and not has_pattern and not found.made_call:
        return unknown("the words are none of the known phrases")
    return fails((found.error or "wrong").replace("_", " "))


VERIFIERS: dict[AnswerChecker, Verifier] = {
    "calls": one_by_one(_check_calls),
    "gold": one_by_one(_check_gold),
    "values": check_values,
    "agreement": check_agreement,
}


def verify_answers(
    candidates: Sequence[Candidate], checkers: Sequence[AnswerChecker]
) -> list[dict[AnswerChecker, Finding]]:
    """What each of the checkers says about each answer, in the order of the answers."""
    found = {name: VERIFIERS[name](candidates) for name in checkers}
    return [{name: findings[i] for name, findings in found.items()} for i in range(len(candidates))]
