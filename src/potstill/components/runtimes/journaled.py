"""A teacher whose requests go through its journal: what was answered once is not asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from potstill.components.runtimes import Answer, OnAnswers, OnAsk, Sampling
from potstill.components.runtimes.journal import Journal, OpenJournal, Usage, billed
from potstill.components.runtimes.spending import Account, estimate
from potstill.core.errors import PotstillError, TeacherError, UsageError
from potstill.core.format import format_count
from potstill.core.progress import say
from potstill.core.records import Row

__all__ = ["AskedTogether", "JournaledRuntime", "Teacher"]

_FEW_REFUSED = 5
_REFUSED_SHARE = 0.2
"""Share of rows that a teacher may refuse, once it has refused `_FEW_REFUSED`. More of them are not the fault of single
rows."""


class AskedTogether(NamedTuple):
    """Rows that are answered together, because an answer may depend on the others in its last bits.

    rows      their places in the rows that were given
    request   all that their answers depend on, as JSON values; the teacher itself is not part of it
    """

    rows: Sequence[int]
    request: Mapping[str, Any]


class Teacher(Protocol):
    """A runtime whose requests go through a journal."""

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """What `answer` sends for these rows. Without some of the groups, the other groups stay the same."""
        ...

    def answer(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        label: str,
        on_answers: OnAnswers | None = None,
        on_ask: OnAsk | None = None,
    ) -> list[Answer]:
        """See `Runtime`. `on_ask` is called right before rows are sent."""
        ...


class _Refusals:
    """Counts answers and refused rows."""

    def __init__(self, known: Sequence[Answer]) -> None:
        self.refused = sum(answer.finish_reason == "refused" for answer in known)
        self.answered = len(known) - self.refused
        self._last = ""

    def count(self, answer: Answer, row: Row, teacher: str) -> None:
        """Count an answer.

        Raises:
            TeacherError: too many rows are refused.
        """
        if answer.finish_reason != "refused":
            self.answered += 1
            return
        self.refused += 1
        self._last = f"{row.name} ({answer.detail})"
        if self.refused >= _FEW_REFUSED and self.refused > _REFUSED_SHARE * (self.refused + self.answered):
            raise self._error(teacher)

    def require_answer(self, teacher: str) -> None:
        """Check that at least one row is answered.

        Raises:
            TeacherError: every row is refused.
        """
        if self.refused and not self.answered:
            raise self._error(teacher)

    def _error(self, teacher: str) -> TeacherError:
        return TeacherError(
            f"{teacher}: it refuses {self.refused} of {self.refused + self.answered} rows, the last of them "
            f"{self._last}. Up to {_REFUSED_SHARE:.0%} of the rows may be refused; they are then left out with their "
            "reason. Check that teacher.base_url names an OpenAI-compatible API (most end in /v1), look into the "
            "server's log, then run again; answers so far are kept."
        )


class JournaledRuntime:
    """A teacher that is asked only for what its journal does not hold.

    Args:
        teacher: who is asked.
        journal: the file with its requests.
        account: what an endpoint's answers cost, and may cost; None for a local teacher.
        offline: whether nothing may be sent, so that every answer must be in the journal.
    """

    def __init__(
        self, teacher: Teacher, journal: Journal, account: Account | None = None, *, offline: bool = False
    ) -> None:
        self.teacher, self.journal, self.account, self.offline = teacher, journal, account, offline

    def announce(self, planned: Sequence[tuple[Sequence[Row], Sampling]]) -> None:
        """Say what asking for these rows may take, before anything is paid for; a local teacher says nothing.

        Raises:
            UsageError: the budget has no room for the requests that are sent first, or an answer is missing offline.
        """
        if self.account is None:
            return
        requests = {
            self.journal.key(request): estimate(request, sampling.max_new_tokens)
            for rows, sampling in planned
            for _, request in self.teacher.requests(rows, sampling)
        }
        if not requests:
            return
        with self.journal.opened() as journal:
            known = journal.read(requests)
            missing = [key for key in requests if key not in known]
            self._require_online(len(missing), len(requests))
            self.account.open(journal.spent())
            again = journal.unanswered(missing)
        if not missing:
            return
        estimates = [requests[key] for key in missing]
        count, held = format_count(len(missing), "request"), len(requests) - len(missing)
        stored = f" ({held:,} more are in the journal)" if held else ""
        say(f"{self.journal.teacher}: {count}{stored}, {self.account.describe(estimates)}.")
        if again:
            say(
                f"{format_count(again, 'request')} of these had been sent when an earlier run was killed, so the "
                "endpoint may bill them twice."
            )
        self.account.require_first(estimates)

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`. Rows for which the same is sent are asked for once. `on_answers` receives no stored answers.

        A request is in the journal before it is sent, and its answer as soon as all that were asked together are there.
        Where the teacher fails, its refusals of these rows are forgotten: they may have the same cause as the failure,
        which the user will remove.

        Raises:
            TeacherError: the teacher fails, or refuses more than a share of the rows, or all of them.
            BudgetError: the budget is used up.
            UsageError: an answer is missing offline.
        """
        plan = [
            (self.journal.key(request), places, request) for places, request in self.teacher.requests(rows, sampling)
        ]
        groups = {key: list(places) for key, places, _ in reversed(plan)}  # of equal requests, the first is sent
        with self.journal.opened() as journal:
            known = {k: found for k, found in journal.read(groups).items() if len(found) == len(groups[k])}
            missing = {key: places for key, places in groups.items() if key not in known}
            self._require_online(len(missing), len(groups))
            if self.account:
                self.account.open(journal.spent())
            requests = {key: request for key, _, request in plan if key in missing}
            asking = _Asking(self, journal, rows, sampling, missing, requests, known, on_answers)
            try:
                fresh = asking.run(label) if missing else {}
            except PotstillError as error:  # the teacher has ended every request, and a kill would not
                journal.take_back()
                if isinstance(error, TeacherError):
                    journal.withdraw(groups)
                raise
        answers = known | fresh
        by_place = {p: answer for key, places, _ in plan for p, answer in zip(places, answers[key], strict=True)}
        return [by_place[place] for place in range(len(rows))]

    def _require_online(self, missing: int, total: int) -> None:
        if self.offline and missing:
            raise UsageError(
                f"{missing:,} of {format_count(total, 'answer')} of {self.journal.teacher} are not in the journal "
                f"{self.journal.path}, and offline nothing is sent. Run once without --offline (teacher.offline) to "
                "ask for them."
            )


class _Asking:
    """Asks a teacher for the rows whose answers are missing.

    Args:
        runtime: the teacher with its account.
        journal: its open journal.
        rows: all rows.
        sampling: how they are answered.
        groups: places of the rows that are asked together, by the key of their request.
        requests: the requests by key.
        known: answers that the journal holds.
        on_answers: is called with fresh answers.
    """

    def __init__(
        self,
        runtime: JournaledRuntime,
        journal: OpenJournal,
        rows: Sequence[Row],
        sampling: Sampling,
        groups: Mapping[str, list[int]],
        requests: Mapping[str, Mapping[str, Any]],
        known: Mapping[str, Sequence[Answer]],
        on_answers: OnAnswers | None,
    ) -> None:
        self._runtime, self._journal, self._rows, self._sampling = runtime, journal, rows, sampling
        self._groups, self._requests, self._on_answers = groups, requests, on_answers
        self._places = sorted(place for places in groups.values() for place in places)
        self._key_of = {place: key for key, places in groups.items() for place in places}
        self._fresh: dict[int, Answer] = {}
        self._reserved: dict[str, Usage] = {}
        self._refusals = _Refusals([answer for answers in known.values() for answer in answers])

    def run(self, label: str) -> dict[str, list[Answer]]:
        """The answers by the key of their request."""
        asked, teacher = [self._rows[place] for place in self._places], self._runtime.teacher
        teacher.answer(asked, self._sampling, label, self._keep, self._ask)
        self._refusals.require_answer(self._runtime.journal.teacher)
        return {key: [self._fresh[place] for place in places] for key, places in self._groups.items()}

    def _ask(self, indices: list[int]) -> None:
        """Reserve what the requests may take, and write them into the journal."""
        keys = dict.fromkeys(self._key_of[self._places[index]] for index in indices)
        account, limit = self._runtime.account, self._sampling.max_new_tokens
        estimates = {key: estimate(self._requests[key], limit) if account else Usage() for key in keys}
        if account:
            for usage in estimates.values():
                account.reserve(usage)
        self._reserved |= estimates
        self._journal.ask(estimates)

    def _keep(self, batch: list[tuple[int, Answer]]) -> None:
        """Write answers into the journal."""
        arrived = [(self._places[index], answer) for index, answer in batch]
        self._fresh.update(arrived)
        whole = {}
        for key in dict.fromkeys(self._key_of[place] for place, _ in arrived):
            if all(place in self._fresh for place in self._groups[key]):
                whole[key] = [self._fresh[place] for place in self._groups[key]]
        self._journal.end(whole)
        if account := self._runtime.account:
            for key, answers in whole.items():
                reserved = self._reserved.pop(key)
                account.settle(reserved, billed(answers, reserved))
        for place, answer in arrived:
            self._refusals.count(answer, self._rows[place], self._runtime.journal.teacher)
        if self._on_answers:
            self._on_answers(arrived)
