"""How the rates of releases went, and in which release something broke."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.apps.registry.registry import Released, results_of
from potstill.components.suites.pairs import one_sided_p_value, paired_items, require_comparable, slice_counts
from potstill.components.suites.rates import ALL, TagRate, rates
from potstill.core.artifacts.suite_results import ItemResult, SuiteResults
from potstill.core.errors import UsageError
from potstill.core.format import format_number
from potstill.core.stats import holm

__all__ = ["Break", "ReleaseRates", "bisect", "history", "with_results"]


@dataclass(frozen=True)
class ReleaseRates:
    """The rates of a release on a suite.

    broke   slices in which a drop against the release before is shown, with Holm's correction over its slices
    """

    number: int
    name: str
    model: str
    rates: tuple[TagRate, ...]
    broke: tuple[str, ...]


@dataclass(frozen=True)
class Break:
    """The first release in which an item or a tag was worse than before.

    what      the item or the tag
    number    the release; None if it never broke
    before    the release that it is compared with
    repaired  the first later release in which it is not worse than `before` any more; None if there is none
    why       a sentence
    items     items that were right in `before` and are wrong in the release
    """

    what: str
    number: int | None
    name: str | None
    before: int | None
    repaired: int | None
    why: str
    items: tuple[str, ...]


Measured = tuple[Released, SuiteResults, list[ItemResult]]


def with_results(releases: Sequence[Released], suite: str | None) -> list[Measured]:
    """The releases that have results on a suite; None: on the only suite that there is.

    Raises:
        UsageError: there are several suites, or none of this name.
    """
    names = sorted({each.suite for released in releases for each in released.release.suites})
    if suite is None:
        if len(names) != 1:
            raise UsageError(f"The registry has results on {', '.join(names) or 'no suite'}. Name one with --suite.")
        suite = names[0]
    found = [(each, *got) for each in releases if (got := results_of(each, suite))]
    if not found:
        raise UsageError(f"No release has results on the suite {suite!r}. There are results on {', '.join(names)}.")
    return found


def history(measured: Sequence[Measured], confidence: float, alpha: float) -> list[ReleaseRates]:
    """The rates of each release, oldest first."""
    out = []
    for place, (released, results, items) in enumerate(measured):
        broke = _broken_slices(measured[place - 1][2], items, alpha) if place else ()
        found = tuple(rates(items, confidence))
        entry = released.entry
        out.append(ReleaseRates(entry.number, entry.name, results.model.sha256, found, broke))
    return out


def _broken_slices(before: Sequence[ItemResult], after: Sequence[ItemResult], alpha: float) -> tuple[str, ...]:
    pairs = paired_items(before, after)
    names = [each.tag for each in rates([pair.after for pair in pairs], 1 - alpha)] if pairs else []
    counted = [(name, counts) for name in names if (counts := slice_counts(pairs, name, alpha))]
    adjusted = holm([one_sided_p_value(counts) for _, counts in counted])
    return tuple(name for (name, _), p_value in zip(counted, adjusted, strict=True) if p_value < alpha)


def bisect(measured: Sequence[Measured], what: str, alpha: float, across: Sequence[str] = ()) -> Break:
    """The first release in which an item or a tag broke.

    An item broke where it is wrong for the first time after it was right. A tag broke where a drop against the release
    before is shown (exact one-sided McNemar test, with Holm's correction over the releases).

    Raises:
        UsageError: no release has such an item or tag, or two releases cannot be compared.
    """
    for earlier, later in itertools.pairwise(measured):
        require_comparable(earlier[1], later[1], across)
    everything = [item for _, _, items in measured for item in items]
    if any(item.item == what for item in everything):
        return _item_break(measured, what)
    if what == ALL or any(what in item.tags for item in everything):
        return _tag_break(measured, what, alpha)
    raise UsageError(f"No release has an item or a tag {what!r}. `potstill history` lists the tags.")


def _item_break(measured: Sequence[Measured], item: str) -> Break:
    seen = [(released.entry, found.right) for released, _, items in measured for found in items if found.item == item]
    for place in range(1, len(seen)):
        (before, was), (entry, now) = seen[place - 1], seen[place]
        if was and not now:
            repaired = next((later.number for later, right in seen[place + 1 :] if right), None)
            why = f"It was right in release {before.number} and is wrong in release {entry.number}."
            return Break(f"item {item}", entry.number, entry.name, before.number, repaired, why, (item,))
    return Break(f"item {item}", None, None, None, None, "It never went from right to wrong.", ())


def _tag_break(measured: Sequence[Measured], tag: str, alpha: float) -> Break:
    steps = [
        (earlier, later, counts)
        for earlier, later in itertools.pairwise(measured)
        if (counts := slice_counts(paired_items(earlier[2], later[2]), tag, alpha))
    ]
    title = tag if tag == ALL else f"tag {tag}"
    for (earlier, later, counts), p in zip(steps, holm([one_sided_p_value(c) for _, _, c in steps]), strict=True):
        if p >= alpha:
            continue
        lost = [
            pair.after.item
            for pair in paired_items(earlier[2], later[2])
            if pair.broken and (tag == ALL or tag in pair.after.tags)
        ]
        before, entry = earlier[0].entry, later[0].entry
        why = (
            f"Of {counts.n:,} items, {counts.broken:,} broke and {counts.fixed:,} were fixed since release "
            f"{before.number} (p = {format_number(p, 2)} with Holm's correction)."
        )
        rest = measured[measured.index(later) + 1 :]
        repaired = next((m[0].entry.number for m in rest if not _is_worse(earlier, m, tag, alpha)), None)
        return Break(title, entry.number, entry.name, before.number, repaired, why, tuple(lost))
    return Break(title, None, None, None, None, "No release shows a drop against the one before.", ())


def _is_worse(earlier: Measured, later: Measured, tag: str, alpha: float) -> bool:
    counts = slice_counts(paired_items(earlier[2], later[2]), tag, alpha)
    return counts is not None and one_sided_p_value(counts) < alpha
