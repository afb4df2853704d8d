"""What differs between two suites, or between a suite and one of its versions."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.suites.folder import Suite
from potstill.components.suites.items import Item
from potstill.core.errors import UsageError

__all__ = ["Difference", "difference", "since_version"]


@dataclass(frozen=True)
class Difference:
    """Items as `ID PROMPT`: those only in the first suite, only in the second, and those with other labels."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    same: int


def difference(suite: Suite, other: Suite) -> Difference:
    """How a suite differs from another."""
    mine, theirs = ({item.item_id: item for item in each.items} for each in (suite, other))
    relabelled = [item for name, item in mine.items() if name in theirs and theirs[name].sha256 != item.sha256]
    return Difference(
        added=_named([item for name, item in mine.items() if name not in theirs]),
        removed=_named([item for name, item in theirs.items() if name not in mine]),
        relabelled=_named(relabelled),
        same=len(mine.keys() & theirs.keys()) - len(relabelled),
    )


def since_version(suite: Suite, version: int | None = None) -> Difference:
    """The items that are new since a version; None: since the last one.

    Raises:
        UsageError: the suite has no such version.
    """
    latest = suite.record.version
    if version is not None and version > latest:
        raise UsageError(f"{suite.folder}: the suite has no version {version}; the last one is {latest}.")
    since = latest if version is None else version
    old = {each.item for each in suite.frozen if each.version <= since}
    new = [item for item in suite.items if item.item_id not in old]
    return Difference(_named(new), (), (), len(suite.items) - len(new))


def _named(items: list[Item]) -> tuple[str, ...]:
    return tuple(f"{item.item_id} {item.shown_prompt}" for item in items)
