"""Rows whose answers are verified: those that a checker finds wrong are rejected, with what every checker said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from potstill.components.checkers.verdicts import Candidate, Finding
from potstill.components.checkers.verify import verify_answers
from potstill.core.artifacts.generated import VerdictCounts
from potstill.core.recipe.generate import AnswerChecker, UnknownAnswers
from potstill.core.records import Row

__all__ = ["VERSION", "Verified", "passes", "passes_gold", "verify_rows"]

VERSION = 1
"""Of all checkers, in the provenance of rows; raised when one of them judges otherwise than before."""


@dataclass(frozen=True)
class Verified:
    """Rows to learn from, rejected rows, both with the findings in their provenance, and the verdicts by checker."""

    kept: list[Row]
    rejected: list[Row]
    counts: dict[str, VerdictCounts]


def verify_rows(rows: Sequence[Row], checkers: Mapping[AnswerChecker, UnknownAnswers]) -> Verified:
    """Verify the answers of rows; every row is either kept or rejected.

    Args:
        rows: rows with answers.
        checkers: those that run, each with what becomes of the answers that it cannot judge; without any, all rows are
            kept as they are.
    """
    if not checkers:
        return Verified(list(rows), [], {})
    kept: list[Row] = []
    rejected: list[Row] = []
    findings = verify_answers([Candidate.of(row) for row in rows], list(checkers))
    for row, found in zip(rows, findings, strict=True):
        reason = _reason(found, checkers)
        provenance = {**row.provenance, "verify": [_written(name, each) for name, each in found.items()]}
        if reason is not None:
            provenance["rejected"] = reason
        (kept if reason is None else rejected).append(row.model_copy(update={"provenance": provenance}))
    return Verified(kept, rejected, {name: _counts([each[name] for each in findings]) for name in checkers})


def passes(row: Row) -> bool:
    """Whether a checker finds the answer of a verified row right, and none finds it wrong."""
    said = [each["verdict"] for each in row.provenance.get("verify", ())]
    return "pass" in said and "fail" not in said


def passes_gold(row: Row) -> bool:
    """Whether the row's own gold says that its answer is right."""
    found = row.provenance.get("verify", ())
    return any(each["checker"] == f"gold@{VERSION}" and each["verdict"] == "pass" for each in found)


def _reason(
    found: Mapping[AnswerChecker, Finding], checkers: Mapping[AnswerChecker, UnknownAnswers]
) -> AnswerChecker | Literal["unknown"] | None:
    """The first checker that finds the answer wrong, or else `unknown`; None for an answer that is kept."""
    failed = next((name for name, each in found.items() if each.verdict == "fail"), None)
    if failed is not None:
        return failed
    unjudged = any(each.verdict == "unknown" and checkers[name] == "reject" for name, each in found.items())
    return "unknown" if unjudged else None


def _written(name: AnswerChecker, finding: Finding) -> dict[str, Any]:
    said = {"checker": f"{name}@{VERSION}", "verdict": finding.verdict}
    return said if finding.evidence is None else {**said, "evidence": finding.evidence}


def _counts(findings: Sequence[Finding]) -> VerdictCounts:
    said = Counter(each.verdict for each in findings)
    return VerdictCounts(passed=said["pass"], failed=said["fail"], unknown=said["unknown"])
