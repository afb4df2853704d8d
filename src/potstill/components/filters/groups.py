"""Groups of items that are linked by common keys, directly or through other items."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

__all__ = ["linked_groups"]


def linked_groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each item the number of the first item of its group; items with a common key are in one group.

    Args:
        keys: the keys of each item.
    """
    parent = list(range(len(keys)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    holder: dict[Hashable, int] = {}
    for number, each in enumerate(keys):
        for key in each:
            first, last = sorted((root(number), root(holder.setdefault(key, number))))
            parent[last] = first
    return [root(number) for number in range(len(keys))]
