"""A suite on disk: an append-only folder.

    suite.json     what the suite is, and its frozen versions
    items.jsonl    the items, in the order in which they were added
    frozen.jsonl   id and hash of each frozen item

Items that are not frozen are drafts: they may still be changed or removed. A frozen item may not, because gates compare
releases on the items that both answered.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from potstill.components.suites.checks import check_expected
from potstill.components.suites.items import Item, read_items, without_repeats
from potstill.core.artifacts.base import read_parts
from potstill.core.artifacts.suite import FrozenItem, SuiteRecord, SuiteVersion
from potstill.core.errors import DataError, UsageError
from potstill.core.files import write_json_lines

__all__ = ["FROZEN", "ITEMS", "Suite", "add_items", "freeze", "new_suite", "read_suite", "remove_drafts"]

ITEMS = "items.jsonl"
FROZEN = "frozen.jsonl"


@dataclass(frozen=True)
class Suite:
    """A suite as it was read: its record, its items, and those of them that are frozen."""

    folder: Path
    record: SuiteRecord
    items: tuple[Item, ...]
    frozen: tuple[FrozenItem, ...]

    @property
    def drafts(self) -> tuple[Item, ...]:
        """Items that are not frozen yet."""
        known = {each.item for each in self.frozen}
        return tuple(item for item in self.items if item.item_id not in known)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) over the hashes of all items in their order."""
        return _digest(item.sha256 for item in self.items)


def new_suite(folder: Path, record: SuiteRecord) -> Suite:
    """Make an empty suite.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: this exists and is not an empty folder. Name a new folder for the suite.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json_lines(folder / ITEMS, [])
    write_json_lines(folder / FROZEN, [])
    record.write(folder)
    return Suite(folder, record, (), ())


def read_suite(folder: Path) -> Suite:
    """A suite, after a check that no frozen item has changed or is gone.

    Raises:
        UsageError: the folder is not a suite.
        DataError: a file is broken, or a frozen item was changed or removed; the message names the item.
    """
    if not (folder / SuiteRecord.FILE).is_file():
        raise UsageError(
            f"{folder}: this folder has no {SuiteRecord.FILE}, so it is not a suite. Make one with "
            "`potstill suite new FOLDER`, or give the folder of a suite."
        )
    record = SuiteRecord.read_file(folder / SuiteRecord.FILE, "restore the file from version control")
    items = read_items(folder / ITEMS)
    # lines of a later version are from a freeze that was killed before it wrote the version: they are drafts still
    frozen = [each for each in read_parts(folder / FROZEN, FrozenItem) if each.version <= record.version]
    suite = Suite(folder, record, tuple(items), tuple(frozen))
    _require_once(suite)
    _require_frozen(suite)
    return suite


def add_items(suite: Suite, items: Sequence[Item]) -> tuple[Suite, int]:
    """The suite with more items at its end, and the number of items that it had already.

    Raises:
        DataError: what an item expects cannot be answered.
    """
    with _alone(suite.folder):
        suite = read_suite(suite.folder)
        new = without_repeats(items, (item.item_id for item in suite.items))
        check_expected(new)
        _write_items(suite, (*suite.items, *new))
        return read_suite(suite.folder), len(items) - len(new)


def remove_drafts(suite: Suite, ids: Iterable[str]) -> Suite:
    """The suite without those of these items that are still drafts."""
    with _alone(suite.folder):
        suite = read_suite(suite.folder)  # while somebody reviewed it, others may have added items or frozen them
        gone = {item.item_id for item in suite.drafts} & set(ids)
        _write_items(suite, [item for item in suite.items if item.item_id not in gone])
        return read_suite(suite.folder)


def freeze(suite: Suite) -> Suite:
    """The suite with all of its items frozen, as a new version.

    Raises:
        UsageError: it has no new items.
        DataError: what an item expects cannot be answered.
    """
    with _alone(suite.folder):
        return _freeze(read_suite(suite.folder))


def _freeze(suite: Suite) -> Suite:
    if not suite.drafts:
        last = f"version {suite.record.version} has all of its items" if suite.record.version else "it has no items"
        raise UsageError(f"{suite.folder}: there is nothing to freeze: {last}. Add items first.")
    check_expected(suite.drafts)
    number = suite.record.version + 1
    new = [
        FrozenItem(item=item.item_id, sha256=item.sha256, version=number, prompt=item.shown_prompt)
        for item in suite.drafts
    ]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    frozen = (*suite.frozen, *new)
    digest = _digest(each.sha256 for each in frozen)
    version = SuiteVersion(version=number, items=len(frozen), sha256=digest, frozen=now)
    write_json_lines(suite.folder / FROZEN, [each.to_json() for each in frozen])
    suite.record.model_copy(update={"versions": (*suite.record.versions, version)}).write(suite.folder)
    return read_suite(suite.folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a suite's folder, so that no other process changes it between a read and a write; waits for others."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released with the process, also when it is killed
        yield
    finally:
        os.close(handle)


def _write_items(suite: Suite, items: Iterable[Item]) -> None:
    write_json_lines(suite.folder / ITEMS, [item.to_line() for item in items])


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _require_once(suite: Suite) -> None:
    lines: dict[str, int] = {}
    for number, item in enumerate(suite.items, 1):
        if first := lines.get(item.item_id):
            raise DataError(
                f"{suite.folder / ITEMS}: item {item.item_id} ({item.shown_prompt}) is there twice, as items {first} "
                f"and {number}. Delete one of them."
            )
        lines[item.item_id] = number


def _require_frozen(suite: Suite) -> None:
    """Raise DataError where a frozen item is gone or differs from what was frozen."""
    present = {item.item_id: item for item in suite.items}
    for each in suite.frozen:
        where = f"{suite.folder / ITEMS}: item {each.item} ({each.prompt})"
        advice = (
            f"It was frozen in version {each.version}, and a suite is append-only, so that releases stay comparable. "
            "Restore the line from version control, and add what should be different as a new item."
        )
        if each.item not in present:
            raise DataError(f"{where} was removed, or its messages, tools or expected answer were changed. {advice}")
        if present[each.item].sha256 != each.sha256:
            raise DataError(f"{where} has other tags or labels than before. {advice}")
    for version in suite.record.versions:
        first = [each.sha256 for each in suite.frozen if each.version <= version.version]
        if len(first) != version.items or _digest(first) != version.sha256:
            raise DataError(
                f"{suite.folder / FROZEN}: version {version.version} of the suite does not have the items with which "
                "it was frozen. Restore the file from version control."
            )
