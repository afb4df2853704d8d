"""Splits rows into train, validation and test, so that rows of a group and near-duplicates stay together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from potstill.components.filters.groups import linked_groups
from potstill.components.filters.near_duplicates import duplicate_groups
from potstill.core.errors import DataError
from potstill.core.format import format_count
from potstill.core.records import Row

__all__ = ["Split", "asked_text", "split_rows"]

_TEST, _VALIDATION = 0.2, 0.1
_MOST_TEST, _MOST_VALIDATION = 1000, 500
_FEWEST = 3


@dataclass(frozen=True)
class Split:
    """The rows of each split.

    groups    number of groups of rows that stay together
    largest   rows of the largest group
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    groups: int
    largest: int


def asked_text(row: Row) -> str:
    """What is asked in a row: its conversation without the system message, which rows of one workload share."""
    said = (message for message in row.messages if message.role not in ("system", "developer"))
    return "\n".join(message.content or "" for message in said)


def split_rows(rows: Sequence[Row], seed: int) -> Split:
    """Split rows at random: 20 % to test (1,000 at most), 10 % to validation (500 at most), and the others to train.

    Rows stay together that have the same `group`, are near-duplicates, or are turns of one conversation. A group that
    is too large for a share is trained on.

    Raises:
        DataError: there are fewer than three groups.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(_groups(rows)):
        groups[group].append(number)
    if len(groups) < _FEWEST:
        raise DataError(
            f"the files have {format_count(len(rows), 'row')} in {format_count(len(groups), 'group')}, and at least "
            f"{_FEWEST} groups are needed: one to learn from, one for validation and one for test. Rows with the same "
            "group, turns of a conversation and near-duplicates are one group. Add rows that differ from each other."
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    order.sort(key=lambda each: len(each) > max(1, len(rows) // 50))  # large groups last, otherwise in random order
    wanted = {
        "test": min(_MOST_TEST, max(1, round(_TEST * len(rows)))),
        "validation": min(_MOST_VALIDATION, max(1, round(_VALIDATION * len(rows)))),
    }
    chosen: dict[str, list[int]] = {"test": [], "validation": [], "train": []}
    for place, members in enumerate(order):
        fits = (name for name, most in wanted.items() if not chosen[name] or len(chosen[name]) + len(members) <= most)
        # the last group is for training, whatever its size
        split = next(fits, "train") if place < len(order) - 1 or chosen["train"] else "train"
        chosen[split] += members
    parts = {name: [rows[number] for number in sorted(numbers)] for name, numbers in chosen.items()}
    return Split(**parts, groups=len(groups), largest=max(map(len, order)))


def _groups(rows: Sequence[Row]) -> list[int]:
    near = duplicate_groups([asked_text(row) for row in rows])
    requests = {row.messages for row in rows}
    keys: list[list[Hashable]] = []
    for row, group in zip(rows, near, strict=True):
        links: list[Hashable] = [("near", group), ("asked", row.messages)]
        if row.group is not None:
            links.append(("group", row.group))
        # an earlier request of the same conversation ends before one of the assistant's turns
        turns = (place for place, message in enumerate(row.messages) if message.role == "assistant")
        links += [("asked", row.messages[:place]) for place in turns if row.messages[:place] in requests]
        keys.append(links)
    return linked_groups(keys)
