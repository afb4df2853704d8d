"""Judge a candidate against a release: paired on the items that both answered.

A slice (all items, or a tag) FAILs if a drop is shown: the p-value of the exact one-sided McNemar test, with Holm's
correction over the slices, is below alpha. It PASSes if a drop as large as the margin is excluded: the upper end of the
paired interval is below it. Otherwise it is INCONCLUSIVE. Core items may not break at all.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from potstill.apps.registry.waivers import Waiver
from potstill.components.suites.pairs import (
    Pair,
    flips,
    more_items,
    one_sided_p_value,
    paired_items,
    require_comparable,
    slice_counts,
)
from potstill.components.suites.rates import ALL, tags_of
from potstill.core.artifacts.counts import PairedCounts
from potstill.core.artifacts.release import ReleaseVerdict, ReleaseWord, SliceVerdict
from potstill.core.artifacts.suite_results import ItemResult, SuiteResults
from potstill.core.errors import UsageError
from potstill.core.format import format_count, format_number, format_points
from potstill.core.stats import holm, p_value_from_interval
from potstill.core.words import nearest_hint, printable

__all__ = ["GateSettings", "judge_release"]

_ORDER: tuple[ReleaseWord, ...] = ("FAIL", "INCONCLUSIVE", "WAIVED", "PASS")
Results = tuple[SuiteResults, Sequence[ItemResult]]


@dataclass(frozen=True)
class GateSettings:
    """What the gate asks for.

    alpha     probability that an unchanged model fails
    margin    drop that PASS excludes, as a fraction
    accepted  drop that is accepted beforehand, as a fraction, by tag
    tags      tags that are judged; empty: all
    across    conditions that may differ
    today     the day on which waivers are valid or not
    """

    alpha: float = 0.05
    margin: float = 0.05
    accepted: Mapping[str, float] = field(default_factory=dict)
    tags: Sequence[str] = ()
    across: Sequence[str] = ()
    today: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())


def judge_release(
    before: Results, after: Results, name: str, settings: GateSettings, waivers: Sequence[Waiver] = ()
) -> ReleaseVerdict:
    """The verdict on a candidate.

    Args:
        before: the earlier release's results and items.
        after: the candidate's.
        name: name of the earlier release.
        settings: what the gate asks for.
        waivers: losses that are accepted in writing.

    Raises:
        UsageError: the results cannot be compared, or a tag does not exist.
    """
    differing = require_comparable(before[0], after[0], settings.across)
    pairs = paired_items(before[1], after[1])
    if not pairs:
        raise UsageError(f"The candidate and release {name} have no item of the suite {after[0].suite} in common.")
    tags = _chosen_tags(pairs, settings)
    mine = [waiver for waiver in waivers if waiver.is_for(after[0].model.sha256) and _exists(waiver, after[0], pairs)]
    valid = [waiver for waiver in mine if waiver.expires >= settings.today]
    expired = [waiver for waiver in mine if waiver.expires < settings.today]
    slices = [
        *(_expired(waiver) for waiver in expired),
        *_core(pairs, valid),
        *_slices(pairs, [ALL, *tags], settings, valid),
        *(_used(waiver) for waiver in valid if waiver.item),
    ]
    slices = [_waived_suite(each, valid) for each in slices]
    verdict = next(word for word in _ORDER if word == "PASS" or any(each.verdict == word for each in slices))
    return ReleaseVerdict(
        verdict=verdict,
        suite=after[0].suite,
        against=name,
        candidate=after[0].model,
        alpha=settings.alpha,
        margin=settings.margin,
        items=len(pairs),
        new_items=len(after[1]) - len(pairs),
        slices=tuple(sorted(slices, key=lambda each: _ORDER.index(each.verdict))),
        flips=flips(pairs),
        differing=differing,
    )


def _chosen_tags(pairs: Sequence[Pair], settings: GateSettings) -> list[str]:
    known = tags_of([pair.after for pair in pairs])
    for tag in (*settings.tags, *settings.accepted):
        if tag not in known and tag != ALL:
            raise UsageError(
                f"No item that both answered has the tag {tag!r}; {nearest_hint(tag, known, 'their tags are')}"
            )
    return [tag for tag in known if not settings.tags or tag in settings.tags]


def _exists(waiver: Waiver, results: SuiteResults, pairs: Sequence[Pair]) -> bool:
    if waiver.item:
        return any(pair.after.item == waiver.item for pair in pairs)
    if waiver.tag:
        return any(waiver.tag in pair.after.tags for pair in pairs)
    return waiver.suite == results.suite


# ---- slices ----


def _slices(
    pairs: Sequence[Pair], names: Sequence[str], settings: GateSettings, waivers: Sequence[Waiver]
) -> list[SliceVerdict]:
    """The verdict of each slice. Waived items count nowhere, and items of a waived tag count in that tag only."""
    by_tag = {waiver.tag: waiver for waiver in waivers if waiver.tag}
    items = {waiver.item for waiver in waivers if waiver.item}
    counted: list[tuple[str, PairedCounts]] = []
    for name in names:
        others = by_tag.keys() - {name}
        found = [p for p in pairs if p.after.item not in items and not others & set(p.after.tags)]
        if counts := slice_counts(found, name, settings.alpha):
            counted.append((name, counts))
    p_values = [_p_value(counts, settings.accepted.get(name, 0.0), settings.alpha) for name, counts in counted]
    out = []
    for (name, counts), p_value in zip(counted, holm(p_values), strict=True):
        judged = _judged(name, counts, p_value, settings, len(counted))
        if judged.verdict != "PASS" and (waiver := by_tag.get(name)):
            judged = judged.model_copy(update={"verdict": "WAIVED", "why": f"{judged.why} It is {waiver.words}."})
        out.append(judged)
    return out


def _p_value(counts: PairedCounts, accepted: float, alpha: float) -> float:
    """One-sided p-value of "the drop is at most what is accepted"."""
    if not accepted:
        return one_sided_p_value(counts)
    if counts.gain >= -accepted:
        return 1.0
    return p_value_from_interval(counts.gain, counts.low, counts.high, -accepted, 1 - 2 * alpha) / 2


def _judged(name: str, counts: PairedCounts, p_value: float, settings: GateSettings, slices: int) -> SliceVerdict:
    accepted = settings.accepted.get(name, 0.0)
    margin = max(settings.margin, accepted)
    more = None
    verdict: ReleaseWord
    if p_value < settings.alpha:
        verdict = "FAIL"
        beyond = f" beyond the {format_points(accepted).lstrip('+')} points that were accepted" if accepted else ""
        why = f"A drop{beyond} is shown (p = {format_number(p_value, 2)} with Holm's correction)."
    elif -counts.low < margin:
        verdict, why = "PASS", f"A drop of {100 * margin:g} points is excluded."
    else:
        verdict = "INCONCLUSIVE"
        more = more_items(counts, margin, settings.alpha, slices)
        needed = f"About {format_count(more, 'more item')} would decide it." if more else "No number of items would do."
        why = f"No drop is shown, and a drop of {100 * margin:g} points is not excluded. {needed}"
    return SliceVerdict(
        slice=name if name == ALL else f"tag {name}",
        verdict=verdict,
        why=why,
        items=counts.n,
        before=_right_before(counts),
        after=_right_before(counts) - counts.broken + counts.fixed,
        broken=counts.broken,
        fixed=counts.fixed,
        drop=0.0 - counts.gain,
        low=0.0 - counts.high,
        high=0.0 - counts.low,
        p_value=p_value,
        more_items=more,
    )


def _right_before(counts: PairedCounts) -> int:
    return counts.kept.n if counts.kept else 0


# ---- core items and waivers ----


def _core(pairs: Sequence[Pair], waivers: Sequence[Waiver]) -> list[SliceVerdict]:
    """A FAIL for each core item that broke."""
    items = {waiver.item for waiver in waivers if waiver.item}
    tags = {waiver.tag: waiver for waiver in waivers if waiver.tag}
    out = []
    for pair in pairs:
        if not (pair.broken and pair.after.core) or pair.after.item in items:
            continue
        waiver = next((tags[tag] for tag in pair.after.tags if tag in tags), None)
        why = f"A core item was right and is wrong now: {printable(pair.after.prompt, 80)}"
        out.append(
            SliceVerdict(
                slice=f"core item {pair.after.item}",
                verdict="WAIVED" if waiver else "FAIL",
                why=f"{why} It is {waiver.words}." if waiver else why,
            )
        )
    return out


def _expired(waiver: Waiver) -> SliceVerdict:
    why = (
        f"The waiver of {waiver.owner} expired on {waiver.expires} ({waiver.reason.rstrip('.')}). Repair the loss, or "
        "have it waived again."
    )
    return SliceVerdict(slice=f"waiver of {waiver.what}", verdict="FAIL", why=why)


def _used(waiver: Waiver) -> SliceVerdict:
    return SliceVerdict(slice=waiver.what, verdict="WAIVED", why=f"It is {waiver.words}.")


def _waived_suite(judged: SliceVerdict, waivers: Sequence[Waiver]) -> SliceVerdict:
    waiver = next((each for each in waivers if each.suite), None)
    if waiver is None or judged.verdict in ("PASS", "WAIVED") or judged.slice.startswith("waiver of "):
        return judged
    return judged.model_copy(update={"verdict": "WAIVED", "why": f"{judged.why} It is {waiver.words}."})
