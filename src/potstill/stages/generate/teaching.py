"""A split is answered by one teacher, or by several of them under a policy.

cascade   the first teacher answers all prompts, and each next one those without an answer that a checker passes
vote      all answer all prompts; the answer that the gold passes is taken, or else that of more than half of them
route     each prompt is answered by the teacher of its task
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potstill.components.checkers.agreement import compared_answer
from potstill.components.checkers.verdicts import Candidate
from potstill.components.runtimes import Answer
from potstill.core.artifacts.generated import GeneratedSplit, TeacherCounts, VerdictCounts
from potstill.core.recipe import SeveralTeachers
from potstill.core.records import Row
from potstill.stages.generate.asking import Asked, ask_teacher, planned_requests
from potstill.stages.generate.teachers import LoadedTeacher
from potstill.stages.generate.verified import passes, passes_gold, verify_rows

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs

__all__ = ["Taught", "announce", "teach"]


@dataclass
class Taught:
    """What becomes of a split.

    kept       rows to learn from
    rejected   rows that are not learnt from, with the reason
    answers    all answers by row id
    verified   verdicts by checker
    teachers   what each of several teachers did
    compared   prompts to which several teachers gave an answer that is fit in form
    agreed     those of them to which all gave the same
    """

    kept: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    verified: dict[str, VerdictCounts] = field(default_factory=dict)
    teachers: list[TeacherCounts] = field(default_factory=list)
    compared: int = 0
    agreed: int = 0

    def add_answers(self, asked: Asked) -> None:
        """Add what a teacher said."""
        for row_id, given in asked.answers.items():
            self.answers[row_id] += given

    def add_verdicts(self, counts: dict[str, VerdictCounts]) -> None:
        """Add what the checkers said."""
        for name, more in counts.items():
            self.verified[name] = self.verified.get(name, VerdictCounts()) + more

    def compare(self, fit: Iterable[Row]) -> None:
        """Count agreement between teachers on the answers that are fit in form; of several samples, on the first."""
        said: dict[str, dict[str, str]] = defaultdict(dict)
        for row in fit:
            said[row.row_id].setdefault(_teacher_of(row), _said(row))
        several = [set(by.values()) for by in said.values() if len(by) > 1]
        self.compared, self.agreed = len(several), sum(len(each) == 1 for each in several)

    def in_order(self, rows: Sequence[Row]) -> Taught:
        """The same, with the kept rows in the order of the prompts."""
        place = {row.row_id: index for index, row in enumerate(rows)}
        self.kept.sort(key=lambda row: place[row.row_id])
        return self


def announce(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], splits: Sequence[tuple[Sequence[Row], GeneratedSplit]]
) -> None:
    """Say what the answers may take, before anything is paid for; a later teacher of a cascade speaks at its turn."""
    asked_now = teachers[:1] if _policy(inputs) == "cascade" else teachers
    for number, teacher in enumerate(asked_now):
        asked = [
            (_routed(inputs, rows, number) if _policy(inputs) == "route" else rows, split) for rows, split in splits
        ]
        teacher.runtime.announce([each for rows, split in asked for each in planned_requests(inputs, rows, split)])


def teach(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: Sequence[Row], split: GeneratedSplit
) -> Taught:
    """Ask for the answers to a split, and verify them."""
    policy = _policy(inputs)
    if policy == "vote":
        return _vote(inputs, teachers, rows, split).in_order(rows)
    if policy == "route":
        return _route(inputs, teachers, rows, split).in_order(rows)
    done = _cascade(inputs, teachers, rows, split)  # one teacher is a cascade of one
    return done.in_order(rows) if policy else done


def _policy(inputs: GenerateInputs) -> str | None:
    return inputs.teacher.policy if isinstance(inputs.teacher, SeveralTeachers) else None


# ---- policies ----


def _cascade(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: Sequence[Row], split: GeneratedSplit
) -> Taught:
    done, left, all_fit = Taught(), list(rows), list[Row]()
    for number, teacher in enumerate(teachers):
        is_last = number == len(teachers) - 1
        if number:
            teacher.runtime.announce(planned_requests(inputs, left, split))
        asked = ask_teacher(inputs, teacher, left, split)
        verified = verify_rows(asked.fit, inputs.settings.verify)
        all_fit += asked.fit
        settled = {row.row_id for row in verified.kept if is_last or passes(row)}
        kept = [row for row in verified.kept if row.row_id in settled]
        done.kept += kept
        done.rejected += asked.rejected + verified.rejected
        done.rejected += [_rejected(row, "superseded") for row in verified.kept if row.row_id not in settled]
        done.add_answers(asked)
        done.add_verdicts(verified.counts)
        done.teachers.append(_counts(teacher, asked, {row.row_id for row in kept}))
        left = list({row.row_id: row for row in left if row.row_id not in settled}.values())
    if len(teachers) > 1:
        done.compare(all_fit)
    return done


def _vote(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: Sequence[Row], split: GeneratedSplit
) -> Taught:
    done, all_asked = Taught(), list[Asked]()
    distinct = list({row.row_id: row for row in rows}.values())
    for number, teacher in enumerate(teachers):
        asked = ask_teacher(inputs, teacher, distinct if number else rows, split)  # repeated rows are rejected once
        all_asked.append(asked)
        done.rejected += asked.rejected
        done.add_answers(asked)
    verified = verify_rows([row for asked in all_asked for row in asked.fit], inputs.settings.verify)
    done.rejected += verified.rejected
    done.add_verdicts(verified.counts)
    done.compare(row for asked in all_asked for row in asked.fit)
    voters = Counter(row.row_id for asked in all_asked for row in asked.fit)
    ballots: dict[str, list[Row]] = defaultdict(list)
    for row in verified.kept:
        ballots[row.row_id].append(row)
    winners: dict[str, list[Row]] = {}
    for row_id, ballot in ballots.items():
        won = _winners(ballot, voters[row_id])
        winners[row_id] = won
        done.kept += won[:1]
        done.rejected += [_rejected(row, "superseded") for row in won[1:]]
        lost = [row for row in ballot if row not in won]
        done.rejected += [_rejected(row, "outvoted" if won else "no majority") for row in lost]
    for teacher, asked in zip(teachers, all_asked, strict=True):
        mine = {row_id for row_id, won in winners.items() if any(_teacher_of(row) == _name(teacher) for row in won)}
        done.teachers.append(_counts(teacher, asked, mine))
    return done


def _winners(ballot: Sequence[Row], voters: int) -> list[Row]:
    """The rows with the answer that is taken: what the gold passes, or else what more than half of the teachers say."""
    right = [row for row in ballot if passes_gold(row)]
    common, count = Counter(_said(row) for row in right or ballot).most_common(1)[0]
    if not right and (count < 2 or 2 * count <= voters):
        return []
    return [row for row in right or ballot if _said(row) == common]


def _route(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: Sequence[Row], split: GeneratedSplit
) -> Taught:
    done = Taught()
    for number, teacher in enumerate(teachers):
        asked = ask_teacher(inputs, teacher, _routed(inputs, rows, number), split)
        verified = verify_rows(asked.fit, inputs.settings.verify)
        done.kept += verified.kept
        done.rejected += asked.rejected + verified.rejected
        done.add_answers(asked)
        done.add_verdicts(verified.counts)
        done.teachers.append(_counts(teacher, asked, {row.row_id for row in verified.kept}))
    return done


def _routed(inputs: GenerateInputs, rows: Sequence[Row], number: int) -> list[Row]:
    """The rows that a teacher answers."""
    assert isinstance(inputs.teacher, SeveralTeachers)
    own, named = inputs.teacher.teachers[number].tasks, {t for each in inputs.teacher.teachers for t in each.tasks}
    return [row for row in rows if (_task(row) in own if own else _task(row) not in named)]


def _task(row: Row) -> str:
    """Name of a row's task: what its provenance says, or else its behaviour."""
    given = row.provenance.get("task")
    return given if isinstance(given, str) else row.behaviour


# ---- rows ----


def _name(teacher: LoadedTeacher) -> str:
    return f"{teacher.identity.endpoint} {teacher.identity.model}"


def _teacher_of(row: Row) -> str:
    """The name of the teacher that answered."""
    identity = row.provenance.get("teacher", {})
    return f"{identity.get('endpoint')} {identity.get('model')}"


def _said(row: Row) -> str:
    """An answer as it is compared with others."""
    answer = Candidate.of(row).answer
    return compared_answer(answer) if answer else f"not whole: {row.model_dump_json()}"


def _rejected(row: Row, reason: str) -> Row:
    return row.model_copy(update={"provenance": {**row.provenance, "rejected": reason}})


def _counts(teacher: LoadedTeacher, asked: Asked, wins: set[str]) -> TeacherCounts:
    return TeacherCounts(teacher=teacher.identity, prompts=len(asked.answers), wins=len(wins))
