"""The SQLite file of a journal: its table, the check of its rows, and what is saved of a damaged file.

SQLite has no checksums, so each row with answers has one. A damaged file is kept under another name, and its intact
rows are copied into a new one. Answers that earlier versions of potstill kept as lines of JSON are taken over once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from potstill.components.runtimes import Answer
from potstill.core.files import file_lines, replacing

__all__ = [
    "StoredRow", "answers_digest", "answers_json", "connect", "count_damaged", "import_old_answers", "intact_rows",
    "old_answers", "open_file", "repair",
]  # fmt: skip

_BUSY_SECONDS = 60.0
"""How long a statement waits for another process that writes."""
_TABLE = """
    CREATE TABLE IF NOT EXISTS requests (
        key TEXT PRIMARY KEY,                          -- SHA-256 of the teacher and of what it is sent
        state TEXT NOT NULL,                           -- asked, answered or rejected
        reason TEXT,                                   -- why it is rejected
        run TEXT,                                      -- name of the run that sent it last
        sent INTEGER NOT NULL DEFAULT 0,               -- how often it was sent, without retries after a fault
        asked TEXT,                                    -- when it was sent last: UTC, ISO 8601
        ended TEXT,                                    -- when its answer came
        prompt_tokens INTEGER NOT NULL DEFAULT 0,      -- an estimate while it is asked
        completion_tokens INTEGER NOT NULL DEFAULT 0,  -- likewise
        answers BLOB,                                  -- JSON
        digest TEXT                                    -- SHA-256 of key, state and answers
    ) WITHOUT ROWID"""
_ANSWERS = TypeAdapter(list[Answer])
_OLD_LINE = re.compile(rb'\{"key":"([0-9a-f]{64})","check":"([0-9a-f]{64})","answers":(\[.*\])\}')


class StoredRow(NamedTuple):
    """A row with answers; `columns` are all of its values in the order of the table."""

    key: str
    answers: bytes
    columns: tuple[Any, ...] = ()

    def parsed(self) -> list[Answer]:
        """The answers."""
        return _ANSWERS.validate_json(self.answers)


def answers_json(answers: Sequence[Answer]) -> bytes:
    """Answers as JSON, without the values that are None."""
    values = [
        {name: value for name, value in answer.items() if value is not None}
        for answer in _ANSWERS.dump_python(list(answers), mode="json")
    ]
    return json.dumps(values, separators=(",", ":")).encode()


def answers_digest(key: str, state: str, answers: bytes) -> str:
    """SHA-256 (hex) that a row with answers has."""
    return hashlib.sha256(f"{key} {state} ".encode() + answers).hexdigest()


def _readable(answers: bytes) -> bool:
    try:
        return bool(_ANSWERS.validate_json(answers))
    except ValidationError:  # of another version of potstill
        return False


# ---- the file ----


def connect(uri: str) -> sqlite3.Connection:
    """A connection to an SQLite file. Text that is not UTF-8 is read with marks in place of what is wrong."""
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to a journal's file, which is made where there is none."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its other files the same mode
    connection = connect(path.as_uri())
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(_TABLE)
    return connection


def intact_rows(connection: sqlite3.Connection, order: str = "ASC") -> Iterator[StoredRow | None]:
    """The rows with answers in the order of their keys; None in place of each that has changed.

    Raises:
        sqlite3.DatabaseError: the file is damaged, and the rows after this place cannot be read.
    """
    rows = connection.execute(f"SELECT key, state, answers, digest, * FROM requests ORDER BY key {order}")
    for key, state, answers, digest, *columns in rows:
        if state == "asked":
            continue
        content = answers if isinstance(answers, bytes) else b""
        intact = digest == answers_digest(str(key), str(state), content) and _readable(content)
        yield StoredRow(str(key), content, tuple(columns)) if intact else None


def count_damaged(path: Path) -> int:
    """In how many places a file is damaged; 0 where there is none.

    Raises:
        sqlite3.OperationalError: it cannot be opened.
    """
    if not path.exists():
        return 0
    damaged = 0
    try:
        with closing(open_file(path)) as connection:
            for row in intact_rows(connection):
                damaged += row is None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        damaged += 1
    return damaged


# ---- what is saved ----


def repair(path: Path) -> Path:
    """Keep a damaged file under another name, and copy its intact rows into a new one; returns the other name."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with suppress(sqlite3.Error), closing(connect(path.as_uri())) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy2(path, kept)
    with replacing(path) as temporary:
        with closing(open_file(temporary)) as target:
            for row in _saved_rows(kept):
                places = ", ".join("?" * len(row.columns))
                target.execute(f"INSERT OR IGNORE INTO requests VALUES ({places})", row.columns)
            target.commit()
            target.execute("PRAGMA journal_mode = DELETE")  # all of it is in one file, which can be renamed
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    return kept


def _saved_rows(path: Path) -> Iterator[StoredRow]:
    """The intact rows of a damaged file: from its begin to the damage, and from its end back to the damage."""
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error), closing(connect(f"{path.as_uri()}?immutable=1")) as connection:
            yield from (row for row in intact_rows(connection, order) if row is not None)


def old_answers(path: Path) -> Iterator[StoredRow]:
    """Answers that earlier versions kept next to this journal, as lines of JSON; changed ones are left out."""
    old = path.with_suffix(".jsonl")
    if not old.is_file():
        return
    for line in file_lines(old):
        match = _OLD_LINE.fullmatch(line)
        if match and hashlib.sha256(match[1] + match[3]).hexdigest() == match[2].decode() and _readable(match[3]):
            yield StoredRow(match[1].decode(), match[3])


def import_old_answers(path: Path, connection: sqlite3.Connection) -> None:
    """Take over the answers of earlier versions, and rename their file, so that this is done once."""
    old = path.with_suffix(".jsonl")
    if not old.is_file():
        return
    rows = [(row.key, row.answers, answers_digest(row.key, "answered", row.answers)) for row in old_answers(path)]
    with connection:
        connection.executemany(
            "INSERT OR IGNORE INTO requests (key, state, answers, digest) VALUES (?, 'answered', ?, ?)", rows
        )
    with suppress(FileNotFoundError):  # another run was faster
        old.replace(old.with_name(f"{old.name}.imported"))
