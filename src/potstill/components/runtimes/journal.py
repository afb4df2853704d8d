"""The journal of a teacher's requests: one row per request, written before it is sent and after it is answered.

One SQLite file per teacher lies in the folder of all runs, and outlives every step:
`RUNS/.answers/TEACHER-HASH8.sqlite`. Other prompts, students, filters and limits find the answers that they share, so
no run pays for an answer twice. The key of a row is the SHA-256 of all that can change the answer: the teacher, its
address or weights, and what it is sent. The request itself is not in the file, and neither are keys of an endpoint.
Only the owner can read the file.

A row is `asked` before its request is sent, and `answered` or `rejected` with a reason afterwards. A row that is still
`asked` when a run begins was on its way when an earlier run was killed. A killed process loses no row that was written;
a loss of power loses those of the last second, because the write-ahead log is flushed to the disk once per second.
Several runs can share the file. An answer that has changed since is never used: the file is kept under another name,
its other rows are copied into a new one, and a message says so.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from potstill.components.runtimes import Answer
from potstill.components.runtimes.journal_file import (
    answers_digest,
    answers_json,
    connect,
    count_damaged,
    import_old_answers,
    intact_rows,
    old_answers,
    open_file,
    repair,
)
from potstill.core.errors import StepError
from potstill.core.hashing import HashedPath, fingerprint
from potstill.core.progress import say
from potstill.core.recipe.teacher import ApiTeacher, LocalTeacher
from potstill.core.words import printable

__all__ = ["Journal", "OpenJournal", "Spent", "Usage", "billed"]

_FORMAT = 1
"""Part of every key; raised when the same request must be answered anew."""
_FLUSH_SECONDS = 1.0
_ASK = """
    INSERT INTO requests (key, state, run, sent, asked, prompt_tokens, completion_tokens)
    VALUES (:key, 'asked', :run, 1, :now, :prompt, :completion)
    ON CONFLICT (key) DO UPDATE SET state = 'asked', run = :run, sent = sent + 1, asked = :now, ended = NULL,
        reason = NULL, answers = NULL, digest = NULL,
        prompt_tokens = prompt_tokens + :prompt, completion_tokens = completion_tokens + :completion"""
_END = """
    UPDATE requests SET state = :state, reason = :reason, ended = :now, answers = :answers, digest = :digest,
        prompt_tokens = prompt_tokens + :prompt, completion_tokens = completion_tokens + :completion
    WHERE key = :key"""
_TAKE_BACK = """
    UPDATE requests SET sent = sent - 1, prompt_tokens = prompt_tokens - :prompt,
        completion_tokens = completion_tokens - :completion
    WHERE key = :key"""
_WITHDRAW = "DELETE FROM requests WHERE key = ? AND state = 'rejected'"


class Usage(NamedTuple):
    """Tokens of prompts and of answers."""

    prompt: int = 0
    completion: int = 0


def billed(answers: Sequence[Answer], estimate: Usage) -> Usage:
    """What answers took; the estimate where an endpoint gives an answer and no count of its tokens."""
    used = Usage(sum(a.prompt_tokens for a in answers), sum(a.completion_tokens for a in answers))
    refused = all(answer.finish_reason == "refused" for answer in answers)
    return used if any(used) or refused else estimate


@dataclass(frozen=True)
class Spent:
    """What a run has sent to a teacher, as its journal knows it."""

    requests: int
    usage: Usage


@dataclass(frozen=True)
class Journal:
    """The file with a teacher's requests.

    path       the file
    identity   which teacher answers, beyond the name: the hash of its weights, or its address
    run        name of the run that asks
    teacher    what messages call the teacher
    """

    path: Path
    identity: str
    run: str
    teacher: str = "the teacher"

    @classmethod
    def for_step(cls, step: Path, teacher: LocalTeacher | ApiTeacher, weights: HashedPath | None) -> Journal:
        """The journal that a step uses, in the folder of all runs.

        Args:
            step: the step's directory, `RUNS/NAME/STAGE-HASH12`.
            teacher: the recipe's section.
            weights: folder of a local teacher; None for an endpoint.
        """
        if teacher.kind == "api":
            name, identity, shown = teacher.model, teacher.base_url, f"{teacher.model} at {teacher.base_url}"
        else:
            assert weights is not None
            name, identity, shown = weights.path.name, f"{teacher.dtype} {weights.sha256}", weights.path.name
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-.") or "teacher"
        mark = fingerprint({"name": name, "identity": identity})[:8]
        folder = step.absolute().parent
        return cls(folder.parent / ".answers" / f"{short}-{mark}.sqlite", identity, folder.name, shown)

    def key(self, request: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of a request to this teacher."""
        return fingerprint({"format": _FORMAT, "teacher": self.identity, "request": request})

    def held(self, keys: Collection[str]) -> set[str]:
        """Those of the keys whose requests were answered or rejected. Nothing is changed, not even a damaged file."""
        found = {row.key for row in old_answers(self.path)}
        try:
            if self.path.is_file():
                with closing(connect(f"{self.path.as_uri()}?mode=ro")) as connection:
                    found |= {row.key for row in intact_rows(connection) if row is not None}
        except sqlite3.Error:
            pass  # a run will repair it, or say what is wrong with it
        return found & set(keys)

    @contextmanager
    def opened(self) -> Iterator[OpenJournal]:
        """The journal, ready to be read and written until the end of the block.

        Raises:
            StepError: the file cannot be read or written.
        """
        with ExitStack() as stack:
            with _usable(self.path):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self.path.exists() and not self.path.is_file():
                    raise OSError(errno.EINVAL, "it is not a file")
                handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
                lock = stack.enter_context(open(handle, "rb"))  # it ends with the process, also when that is killed
                fcntl.flock(lock, fcntl.LOCK_SH)
                if damaged := count_damaged(self.path):
                    _lock_alone(lock, self.path)
                    _tell(self.path, repair(self.path), damaged)
                    fcntl.flock(lock, fcntl.LOCK_SH)
                connection = stack.enter_context(closing(open_file(self.path)))
                connection.execute("PRAGMA synchronous = NORMAL")
                import_old_answers(self.path, connection)
            yield OpenJournal(self.path, connection, self.run)


class OpenJournal:
    """A journal that is open.

    Args:
        path: the file.
        connection: to the file.
        run: name of the run that asks.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, run: str) -> None:
        self._path, self._connection, self._run = path, connection, run
        self._estimates: dict[str, Usage] = {}
        self._flushed = time.monotonic()

    def read(self, keys: Collection[str]) -> dict[str, list[Answer]]:
        """The answers to those requests that were answered or rejected."""
        wanted = set(keys)
        with _usable(self._path):
            return {
                row.key: row.parsed() for row in intact_rows(self._connection) if row is not None and row.key in wanted
            }

    def unanswered(self, keys: Collection[str]) -> int:
        """How many of the requests were sent and have no answer, because an earlier run was killed."""
        wanted = set(keys)
        with _usable(self._path):
            rows = self._connection.execute("SELECT key FROM requests WHERE state = 'asked'")
            return sum(key in wanted for (key,) in rows)

    def spent(self) -> Spent:
        """What this run has sent so far, in all of its calls."""
        query = "SELECT sum(sent), sum(prompt_tokens), sum(completion_tokens) FROM requests WHERE run = ?"
        with _usable(self._path):
            found = self._connection.execute(query, (self._run,)).fetchone()
        requests, prompt, completion = (int(value or 0) for value in found)
        return Spent(requests, Usage(prompt, completion))

    def ask(self, estimates: Mapping[str, Usage]) -> None:
        """Note requests that are about to be sent, by their keys, each with the tokens that it may take."""
        self._estimates.update(estimates)
        common = {"run": self._run, "now": _now()}
        rows = [{"key": key, "prompt": use.prompt, "completion": use.completion} for key, use in estimates.items()]
        with _usable(self._path), self._connection:
            self._connection.executemany(_ASK, [row | common for row in rows])

    def end(self, answered: Mapping[str, Sequence[Answer]]) -> None:
        """Write answers by their request's key; a kill after this call loses none of them.

        A request of which one answer is a refusal is rejected.
        """
        rows = [self._ended(key, answers) for key, answers in answered.items()]
        with _usable(self._path), self._flushing(), self._connection:
            self._connection.executemany(_END, rows)

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        """Flush the log to the disk with this transaction, if the last time is long ago."""
        due = time.monotonic() - self._flushed >= _FLUSH_SECONDS
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if due else 'NORMAL'}")
        yield
        if due:
            self._flushed = time.monotonic()

    def _ended(self, key: str, answers: Sequence[Answer]) -> dict[str, Any]:
        refused = next((answer for answer in answers if answer.finish_reason == "refused"), None)
        state, content = "rejected" if refused else "answered", answers_json(answers)
        estimate = self._estimates.pop(key)
        used = billed(answers, estimate)
        return {
            "key": key,
            "state": state,
            "reason": refused.detail if refused else None,
            "now": _now(),
            "prompt": used.prompt - estimate.prompt,
            "completion": used.completion - estimate.completion,
            "answers": content,
            "digest": answers_digest(key, state, content),
        }

    def take_back(self) -> None:
        """Forget the requests that ended with an error of the teacher, which it does not bill."""
        rows = [{"key": k, "prompt": use.prompt, "completion": use.completion} for k, use in self._estimates.items()]
        self._estimates.clear()
        with _usable(self._path), self._connection:
            self._connection.executemany(_TAKE_BACK, rows)
            self._connection.execute("DELETE FROM requests WHERE state = 'asked' AND sent = 0")

    def withdraw(self, keys: Collection[str]) -> None:
        """Forget that requests were rejected, because the reason was not in them."""
        with _usable(self._path), self._connection:
            self._connection.executemany(_WITHDRAW, [(key,) for key in keys])


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StepError(
            f"{path}: the journal with the teacher's answers cannot be used ({printable(reason)}). Check the folder's "
            "permissions and the free disk space, then run again; answers so far are kept."
        ) from None


def _lock_alone(lock: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StepError(
            f"{path}: the journal is damaged, and another run uses it. Wait until that run ends, then run again."
        ) from None


def _tell(path: Path, kept: Path, damaged: int) -> None:
    places = f"{damaged:,} places" if damaged > 1 else "1 place"
    say(
        f"{path}: it is damaged in {places}, and the teacher is asked again for the answers there that are needed. The "
        f"file is kept as {kept.name}."
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
