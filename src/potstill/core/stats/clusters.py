"""Items in groups, such as phrasings of one question: how many independent items they count as."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from potstill.core.stats.beta import t_quantile, z_quantile
from potstill.core.stats.intervals import tail_of

__all__ = ["Groups", "effective_items", "independent_items"]

Groups = Sequence[Hashable]
"""The group of each item; an item whose group is None is a group of its own."""


def effective_items(values: Sequence[float], groups: Groups, confidence: float) -> float:
    """Number of independent items whose mean is as uncertain as the mean of these; at most their number.

    The design effect is the variance of the mean with groups over
    its variance without. It is itself uncertain when few groups hold an unusual value, so Student's t with as many
    degrees of freedom takes the place of the normal distribution. Where all values are equal, nothing shows how alike
    the items of a group are, and they count as if they were always equal.

    Source: Korn and Graubard (1998), Survey Methodology 24:193-201; Kish (1965), Survey Sampling, section 5.4.

    Raises:
        ValueError: the sequences differ in length, or confidence is not between 0 and 1.
    """
    n = len(values)
    if len(groups) != n:
        raise ValueError(f"needs one group per value, got {len(groups)} and {n}")
    tail = tail_of(confidence)
    clusters = list(_clusters(values, groups))
    if len(clusters) == n:
        return float(n)
    mean = math.fsum(values) / n
    alone = (math.fsum(v * v for v in values) / n - mean * mean) / n
    fewest = independent_items(groups)
    usual = Counter(values).most_common(1)[0][0]
    unusual = sum(any(value != usual for value in cluster) for cluster in clusters)
    if not unusual:
        return fewest
    scatter = math.fsum((math.fsum(cluster) - mean * len(cluster)) ** 2 for cluster in clusters)
    together = scatter / n**2 * len(clusters) / (len(clusters) - 1) if len(clusters) > 1 else math.inf
    doubt = (z_quantile(1 - tail) / t_quantile(1 - tail, unusual)) ** 2
    return max(min(fewest, n), min(n, n * alone / together if together else n) * doubt)


def independent_items(groups: Groups) -> float:
    """Number of independent items that these count as if all items of a group always have the same result."""
    clusters = list(_clusters([0.0] * len(groups), groups))
    return len(groups) ** 2 / sum(len(cluster) ** 2 for cluster in clusters) if clusters else 0.0


def _clusters(values: Sequence[float], groups: Groups) -> Iterable[list[float]]:
    named: defaultdict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        if group is None:
            yield [value]
        else:
            named[group].append(value)
    yield from named.values()
