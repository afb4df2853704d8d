"""Texts that are nearly the same: MinHash finds candidates, and the exact overlap of their shingles decides.

Broder (1997), "On the resemblance and containment of documents". Shingles are 5 characters long, because many prompts
have only a few words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from potstill.components.filters.groups import linked_groups

__all__ = ["THRESHOLD", "NearDuplicates", "duplicate_groups", "resemblance"]

THRESHOLD = 0.7
"""Share of common shingles (Jaccard) from which on two texts are near-duplicates."""

_SHINGLE = 5  # characters
_HASHES, _BANDS = 128, 32  # a pair at the threshold is missed with a probability of (1 - 0.7**4)**32 = 0.0002
_SEED = 1


def _shingles(text: str) -> frozenset[str]:
    """All runs of 5 characters of a text in lower case with its words only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if c.isalnum() else " " for c in folded).split() or text.split()
    plain = f" {' '.join(words)} "
    return frozenset(plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def resemblance(one: str, other: str) -> float:
    """Share of the shingles of two texts that both have, between 0 and 1."""
    return _jaccard(_shingles(one), _shingles(other))


class NearDuplicates:
    """An index of texts that finds those near to another one."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        from rensa import RMinHashLSH

        self._threshold = threshold
        self._index = RMinHashLSH(threshold, _HASHES, _BANDS)
        self._sets: list[frozenset[str]] = []

    def __len__(self) -> int:
        return len(self._sets)

    def find(self, text: str) -> tuple[int, float] | None:
        """Number of the added text that is nearest, and its resemblance; None where none reaches the threshold."""
        found = list(self._near(_shingles(text)))
        return max(found, key=lambda each: (each[1], -each[0])) if found else None

    def add(self, text: str) -> list[int]:
        """Add a text; returns the numbers of the near-duplicates that were added before, in order."""
        shingles = _shingles(text)
        near = sorted(number for number, _ in self._near(shingles))
        self._index.insert(len(self._sets), _sketch(shingles))
        self._sets.append(shingles)
        return near

    def _near(self, shingles: frozenset[str]) -> Iterator[tuple[int, float]]:
        for number in self._index.query(_sketch(shingles)):
            shared = _jaccard(shingles, self._sets[number])
            if shared >= self._threshold:
                yield number, shared


def _sketch(shingles: frozenset[str]) -> object:
    from rensa import RMinHash

    return RMinHash.from_token_sets([sorted(shingles)], _HASHES, _SEED)[0]


def duplicate_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each text the number of its group: the first text that it is linked to by a chain of near-duplicates."""
    index, number_of = NearDuplicates(threshold), dict[str, int]()
    linked: list[list[int]] = []
    for text in texts:
        if text in number_of:  # a repeat needs no look-up
            linked.append([number_of[text]])
            continue
        number_of[text] = len(index)
        near = index.add(text)
        linked.append([number_of[text], *near])
    return linked_groups(linked)
