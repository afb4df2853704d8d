"""A teacher's answers, kept by what the teacher was sent, so that no run pays for an answer twice.

One file per teacher lies in the folder of all runs, and outlives every step: `RUNS/.answers/TEACHER-HASH8.jsonl`.
Other prompts, students, filters and limits find the answers that they share. One line holds the answer to one request:

    {"key":"SHA-256 of the request","check":"SHA-256 of key and answers","answers":[...]}

The request itself is not in the file, and neither are keys of an endpoint. Only the owner can read the file. Lines are
appended under a lock, so several runs can share it, and each is on the disk before the next answer is taken. A line
that a kill cut off is dropped. Lines that have changed since are never used: the file is renamed, the other lines are
copied into a new one, and a message says so.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter, ValidationError

from potstill.components.runtimes import Answer, OnAnswers, Runtime, Sampling
from potstill.core.errors import StepError, TeacherError
from potstill.core.files import file_lines, replacing
from potstill.core.hashing import HashedPath, fingerprint
from potstill.core.recipe.teacher import ApiTeacher, LocalTeacher
from potstill.core.records import Row
from potstill.core.words import printable

__all__ = ["AnswerStore", "AskedTogether", "StoredRuntime", "Teacher"]

_FORMAT = 1
"""Part of every key; raised when the same request must be answered anew."""
_FEW_REFUSED = 5
_REFUSED_SHARE = 0.2
"""Share of rows that a teacher may refuse, once it has refused `_FEW_REFUSED`. More of them are not the fault of single
rows."""
_LINE = re.compile(rb'\{"key":"([0-9a-f]{64})","check":"([0-9a-f]{64})","answers":(\[.*\])\}')
_ANSWERS = TypeAdapter(list[Answer])


class AskedTogether(NamedTuple):
    """Rows that are answered together, because an answer may depend on the others in its last bits.

    rows      their places in the rows that were given
    request   all that their answers depend on, as JSON values; the teacher itself is not part of it
    """

    rows: Sequence[int]
    request: Mapping[str, Any]


class Teacher(Runtime, Protocol):
    """A runtime whose answers can be kept."""

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        """What `answer` sends for these rows. Without some of the groups, the other groups stay the same."""
        ...


@dataclass(frozen=True)
class AnswerStore:
    """The file with a teacher's answers.

    path       the file
    identity   which teacher answers, beyond the name: the hash of its weights, or its address
    """

    path: Path
    identity: str

    @classmethod
    def for_step(cls, step: Path, teacher: LocalTeacher | ApiTeacher, weights: HashedPath | None) -> AnswerStore:
        """The store that a step uses, in the folder of all runs.

        Args:
            step: the step's directory, `RUNS/NAME/STAGE-HASH12`.
            teacher: the recipe's section.
            weights: folder of a local teacher; None for an endpoint.
        """
        if teacher.kind == "api":
            name, identity = teacher.model, teacher.base_url
        else:
            assert weights is not None
            name, identity = weights.path.name, f"{teacher.dtype} {weights.sha256}"
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-.") or "teacher"
        mark = fingerprint({"name": name, "identity": identity})[:8]
        return cls(step.absolute().parent.parent / ".answers" / f"{short}-{mark}.jsonl", identity)

    def key(self, request: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of a request to this teacher."""
        return fingerprint({"format": _FORMAT, "teacher": self.identity, "request": request})

    def read(self, keys: Collection[str]) -> dict[str, list[Answer]]:
        """The answers to those requests that were answered; of several answers to one request, the first.

        Raises:
            StepError: the file cannot be read.
        """
        wanted, found, damaged = set(keys), dict[str, list[Answer]](), 0
        with self._locked():
            if not self.path.exists():
                return {}
            self._drop_torn_line()
            for line in file_lines(self.path):
                parsed = _parse(line)
                if parsed is None:
                    damaged += 1
                elif parsed[0] in wanted:
                    found.setdefault(*parsed)
            if damaged:
                self._replace_damaged(damaged)
        return found

    def held(self, keys: Collection[str]) -> set[str]:
        """Those of the keys whose requests were answered. Nothing is locked or changed, not even a damaged file."""
        if not self.path.is_file():
            return set()
        return {parsed[0] for parsed in map(_parse, file_lines(self.path)) if parsed} & set(keys)

    def append(self, answered: Mapping[str, Sequence[Answer]]) -> None:
        """Write answers by their request's key; they are on the disk when this returns.

        Raises:
            StepError: the file cannot be written.
        """
        if not answered:
            return
        lines = []
        for key, answers in answered.items():
            values = [
                {name: value for name, value in asdict(answer).items() if value is not None} for answer in answers
            ]
            text = json.dumps(values, separators=(",", ":"))
            lines.append(f'{{"key":"{key}","check":"{_check(key, text.encode())}","answers":{text}}}\n')
        with self._locked():
            self._drop_torn_line()
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(handle, "w", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file against other processes; the lock ends with the process, also when it is killed."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.exists() and not self.path.is_file():
                raise OSError(errno.EINVAL, "it is not a file")
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            with open(handle, "rb"):
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StepError(
                f"{self.path}: the file with the teacher's answers cannot be used ({error.strerror or error}). Check "
                "the folder's permissions and the free disk space, then run again; answers so far are kept."
            ) from None

    def _drop_torn_line(self) -> None:
        """Cut off a last line that has no end: its writer was killed."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            end = content.rfind(b"\n") + 1
            if end < len(content):
                os.ftruncate(file.fileno(), end)

    def _replace_damaged(self, count: int) -> None:
        """Keep the damaged file under another name, and copy its intact lines into a new one."""
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        shutil.copy2(self.path, kept)
        with (
            replacing(self.path) as temporary,
            open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file,
        ):
            file.writelines(line + b"\n" for line in file_lines(self.path) if _parse(line))
        lines = f"{count:,} lines are" if count > 1 else "1 line is"
        print(
            f"  {printable(str(self.path))}: {lines} damaged, and the teacher is asked again for the answers in them "
            f"that are needed. The file is kept as {printable(kept.name)}.",
            file=sys.stderr,
            flush=True,
        )


def _check(key: str, answers: bytes) -> str:
    return hashlib.sha256(key.encode() + answers).hexdigest()


def _parse(line: bytes) -> tuple[str, list[Answer]] | None:
    """Key and answers of a line; None where it is not as it was written."""
    match = _LINE.fullmatch(line)
    if match is None or _check(key := match[1].decode(), match[3]) != match[2].decode():
        return None
    try:
        return key, _ANSWERS.validate_json(match[3])
    except ValidationError:  # of another version of potstill
        return None


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


class StoredRuntime:
    """A teacher that is asked only for what its store does not hold."""

    def __init__(self, teacher: Teacher, store: AnswerStore) -> None:
        self.teacher = teacher
        self.store = store

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """See `Runtime`. Rows for which the same is sent are asked for once. `on_answers` receives no stored answers.

        An answer is stored as soon as all that were asked together are there. A refusal is stored when no error ended
        the run: until then it may have the same cause as the error, which the user will remove.

        Raises:
            TeacherError: the teacher fails, or refuses more than a share of the rows, or all of them.
        """
        plan = [(self.store.key(request), list(places)) for places, request in self.teacher.requests(rows, sampling)]
        groups = dict(reversed(plan))  # of requests that are the same, the first is sent
        known = self.store.read(groups)
        known = {key: answers for key, answers in known.items() if len(answers) == len(groups[key])}
        asked = sorted(place for key, places in groups.items() if key not in known for place in places)
        key_of = {place: key for key, places in groups.items() for place in places}
        fresh: dict[int, Answer] = {}
        refused: dict[str, list[Answer]] = {}
        refusals = _Refusals([answer for answers in known.values() for answer in answers])

        def keep(batch: list[tuple[int, Answer]]) -> None:
            arrived = [(asked[index], answer) for index, answer in batch]
            fresh.update(arrived)
            whole: dict[str, list[Answer]] = {}
            for key in {key_of[place] for place, _ in arrived}:
                if all(place in fresh for place in groups[key]):
                    answers = [fresh[place] for place in groups[key]]
                    (refused if any(a.finish_reason == "refused" for a in answers) else whole)[key] = answers
            self.store.append(whole)
            for place, answer in arrived:
                refusals.count(answer, rows[place], self.store.identity)
            if on_answers:
                on_answers(arrived)

        if asked:
            self.teacher.answer([rows[place] for place in asked], sampling, label, keep)
            refusals.require_answer(self.store.identity)
        self.store.append(refused)
        answers = known | {key: [fresh[p] for p in places] for key, places in groups.items() if key not in known}
        by_place = {p: answer for key, places in plan for p, answer in zip(places, answers[key], strict=True)}
        return [by_place[place] for place in range(len(rows))]
