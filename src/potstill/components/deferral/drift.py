"""Drift: whether live traffic still looks like the calibration rows, from counts alone.

Each block of 200 requests is compared with the reference by a chi-square test of two samples, one test per feature.
Block j may spend 6 alpha / (pi^2 j^2), which sums to alpha over all blocks, and each feature gets its equal share of
that. So the chance of ever raising a false alarm is about alpha, however long the server runs.
"""

from __future__ import annotations

import math
import random
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from potstill.core.artifacts.drift import DriftAlarm, DriftCounts
from potstill.core.artifacts.policy import DriftReference
from potstill.core.errors import UsageError
from potstill.core.stats.chi_square import counts_p_value
from potstill.core.stats.quantiles import quantile

__all__ = [
    "BLOCK",
    "FEATURES",
    "Observation",
    "add_observation",
    "merge_counts",
    "reference_of",
    "script_of",
    "with_noise",
]

BLOCK = 200
"""Requests that are compared at once."""
ALARM = 0.05
"""Chance of ever raising a false alarm."""
_BINS = 10
_SCRIPTS = ("latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "east_asian", "other", "none")
_EAST_ASIAN = ("cjk", "hiragana", "katakana", "hangul")
_LETTERS = 2000  # of a prompt that are looked at
FEATURES = ("score", "length", "deferred", "invalid", "truncated", "script")
"""What is counted of a request."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is counted of one request.

    score      the policy's score; None for an answer without one
    length     tokens of the prompt
    deferred   the answer was withheld
    invalid    a call or JSON text did not fit its schema
    truncated  the answer was cut off
    script     the script of the prompt, by `script_of`
    """

    score: float | None
    length: int
    deferred: bool
    invalid: bool
    truncated: bool
    script: str


def script_of(text: str) -> str:
    """The script of most letters of a text; `none` for a text without letters."""
    names = (unicodedata.name(letter, "other").split()[0].lower() for letter in text[:_LETTERS] if letter.isalpha())
    found = Counter("east_asian" if name in _EAST_ASIAN else name if name in _SCRIPTS else "other" for name in names)
    return found.most_common(1)[0][0] if found else "none"


def reference_of(observations: Sequence[Observation]) -> DriftReference:
    """The reference of a policy: bins with equal shares of the calibration requests, and the counts in them.

    Raises:
        ValueError: no observation, or none with a score.
    """
    scores = [each.score for each in observations if each.score is not None]
    edges = DriftReference(
        score_edges=_edges(scores), length_edges=_edges([float(each.length) for each in observations]), counts={}
    )
    counts: dict[str, tuple[int, ...]] = {}
    for each in observations:
        counts = _add(counts, edges, each)
    return edges.model_copy(update={"counts": counts})


def add_observation(state: DriftCounts, reference: DriftReference, new: Observation) -> DriftCounts:
    """The counts with one more request; a block that is now whole is compared and may raise alarms."""
    current = _add(state.current, reference, new)
    requests = state.requests + 1
    if sum(current["script"]) < BLOCK:
        return state.model_copy(update={"current": current, "requests": requests})
    block = state.blocks + 1
    level = 6 * ALARM / (math.pi**2 * block**2) / len(FEATURES)
    known = {alarm.feature for alarm in state.alarms}
    found = [
        DriftAlarm(feature=feature, block=block, p_value=p)
        for feature in FEATURES
        if feature not in known and (p := counts_p_value(reference.counts[feature], current[feature])) <= level
    ]
    return state.model_copy(
        update={
            "blocks": block,
            "requests": requests,
            "total": _sum([state.total, current]),
            "current": {},
            "alarms": (*state.alarms, *found),
        }
    )


def merge_counts(states: Sequence[DriftCounts]) -> DriftCounts:
    """The counts of several servers added up.

    Raises:
        UsageError: no counts, or counts of different policies.
    """
    if len({state.policy_sha256 for state in states}) != 1:
        raise UsageError("Only counts of one policy can be added up, and these files are of several, or of none.")
    firsts: dict[str, DriftAlarm] = {}
    for alarm in sorted((alarm for state in states for alarm in state.alarms), key=lambda alarm: alarm.block):
        firsts.setdefault(alarm.feature, alarm)
    return DriftCounts(
        policy_sha256=states[0].policy_sha256,
        blocks=sum(state.blocks for state in states),
        requests=sum(state.requests for state in states),
        total=_sum([part for state in states for part in (state.total, state.current)]),
        alarms=tuple(firsts.values()),
        merged=sum(state.merged for state in states),
    )


def with_noise(counts: DriftCounts, epsilon: float) -> DriftCounts:
    """The counts with Laplace noise of scale 1/epsilon in each, rounded, and never below 0.

    One request is in one class of each feature, so each feature's counts are epsilon-differentially private with
    regard to one request.
    """
    draw = random.SystemRandom()

    def noisy(row: tuple[int, ...]) -> tuple[int, ...]:
        # the difference of two exponential variables has Laplace's distribution
        return tuple(max(0, round(n + draw.expovariate(epsilon) - draw.expovariate(epsilon))) for n in row)

    return counts.model_copy(update={"total": {feature: noisy(row) for feature, row in counts.total.items()}})


def _edges(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(sorted({quantile(values, step / _BINS) for step in range(1, _BINS)}))


def _add(
    counts: Mapping[str, tuple[int, ...]], reference: DriftReference, new: Observation
) -> dict[str, tuple[int, ...]]:
    scored = len(reference.score_edges) + 1
    classes = {
        "score": (scored if new.score is None else bisect_left(reference.score_edges, new.score), scored + 1),
        "length": (bisect_left(reference.length_edges, new.length), len(reference.length_edges) + 1),
        "deferred": (int(new.deferred), 2),
        "invalid": (int(new.invalid), 2),
        "truncated": (int(new.truncated), 2),
        "script": (_SCRIPTS.index(new.script), len(_SCRIPTS)),
    }
    out = {}
    for feature, (place, size) in classes.items():
        row = list(counts.get(feature, (0,) * size))
        row[place] += 1
        out[feature] = tuple(row)
    return out


def _sum(parts: Iterable[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for feature, row in part.items():
            out[feature] = tuple(map(sum, zip(out[feature], row, strict=True))) if feature in out else row
    return out
