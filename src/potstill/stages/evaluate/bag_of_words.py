"""The simplest classifier: multinomial naive Bayes over a text's words. A student must beat it to be worth its size."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from potstill.core.records import LabelledRow

__all__ = ["bag_of_words"]

_WORD = re.compile(r"\w+")


def bag_of_words(rows: Sequence[LabelledRow], texts: Sequence[str]) -> list[str]:
    """The label of each text, learnt from the words of labelled rows.

    Each word counts once more in every class than it was seen (Laplace smoothing); words that no row has do not count.

    Source: McCallum and Nigam (1998), A Comparison of Event Models for Naive Bayes Text Classification.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        seen[row.label].update(_words(row.text))
    sizes = Counter(row.label for row in rows)
    known = {word for counts in seen.values() for word in counts}
    totals = {label: counts.total() + len(known) for label, counts in seen.items()}

    def score(label: str, words: Sequence[str]) -> float:
        counts, total = seen[label], totals[label]
        return math.log(sizes[label]) + sum(math.log((counts[word] + 1) / total) for word in words)

    found = []
    for text in texts:
        words = [word for word in _words(text) if word in known]
        found.append(max(sorted(seen), key=lambda label, words=words: score(label, words)))  # type: ignore[misc]
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
