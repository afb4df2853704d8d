"""Releases in a registry, and the verdict on a candidate against one of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.suite_results import EvaluatedModel

__all__ = ["Flip", "RegistryEntry", "Release", "ReleaseVerdict", "ReleaseWord", "ReleasedSuite", "SliceVerdict"]

ReleaseWord = Literal["PASS", "FAIL", "INCONCLUSIVE", "WAIVED"]


class ReleasedSuite(Part):
    """The results of a release on one suite, by the hashes of their files in the registry.

    suite     name of the suite
    results   SHA-256 (hex) of results.json
    items     SHA-256 (hex) of item-results.jsonl
    """

    suite: str
    results: str
    items: str


class Release(Artifact):
    """A release: its model, its results, and its package where it has one.

    model      the model that was evaluated
    suites     its results, one per suite
    manifest   SHA-256 (hex) of the package's manifest.json in the registry; None without a package
    """

    FILE: ClassVar[str] = "release.json"

    model: EvaluatedModel
    suites: tuple[ReleasedSuite, ...]
    manifest: str | None = None


class RegistryEntry(Part):
    """A line of releases.jsonl: the order of the releases.

    number     1 for the first release
    name       name of the release
    recorded   when it was recorded, in UTC
    release    SHA-256 (hex) of its release.json in the registry
    previous   SHA-256 (hex) of the line before; empty for the first
    """

    number: int
    name: str
    recorded: str
    release: str
    previous: str


class Flip(Part):
    """An item that one model answered right and the other wrong.

    item            id of the item
    prompt          last message of the user
    expected        what is right
    before, after   both answers
    broken          whether it was right before
    core            whether a release may never lose it
    """

    item: str
    prompt: str
    expected: str
    before: str
    after: str
    broken: bool
    core: bool
    tags: tuple[str, ...]


class SliceVerdict(Part):
    """The verdict on one slice of a suite: all items, a tag, a core item, or a waiver that has expired.

    slice         what is judged
    verdict       PASS: a drop of the margin is excluded. FAIL: a drop is shown. INCONCLUSIVE: neither
    items         items that both models answered; None for a single item or a waiver
    before        of these, the number that the earlier release has right
    after         the number that the candidate has right
    broken        items that were right and are wrong now
    fixed         items that were wrong and are right now
    drop          drop in the rate of right answers, as a fraction
    low, high     ends of its two-sided interval at 1 - 2 alpha
    p_value       one-sided exact McNemar p-value of no drop, with Holm's correction
    more_items    about how many more items would decide; None where the verdict is decided or no number would do
    why           one or more sentences
    """

    slice: str
    verdict: ReleaseWord
    why: str
    items: int | None = None
    before: int | None = None
    after: int | None = None
    broken: int | None = None
    fixed: int | None = None
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    more_items: int | None = None


class ReleaseVerdict(Artifact):
    """The verdict on a candidate against a release.

    suite       name of the suite
    against     name of the release
    candidate   the model that is judged
    alpha       probability that an unchanged model fails
    margin      drop that PASS excludes, as a fraction
    items       items that both answered
    new_items   items that only the candidate answered: they are reported, and gate from the next release on
    slices      all verdicts, those that fail first
    flips       items that were right and are wrong now, then those that were fixed
    differing   conditions that differ, and were allowed to
    """

    FILE: ClassVar[str] = "release-verdict.json"

    verdict: ReleaseWord
    suite: str
    against: str
    candidate: EvaluatedModel
    alpha: float
    margin: float
    items: int
    new_items: int
    slices: tuple[SliceVerdict, ...]
    flips: tuple[Flip, ...]
    differing: tuple[str, ...] = ()
