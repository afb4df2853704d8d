"""Drift by counts: rare false alarms, quick true ones, and sums over devices."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from potstill.components.deferral.drift import (
    BLOCK,
    FEATURES,
    Observation,
    add_observation,
    merge_counts,
    reference_of,
    script_of,
    with_noise,
)
from potstill.core.artifacts.drift import DriftCounts
from potstill.core.artifacts.policy import DriftReference
from potstill.core.errors import UsageError


def traffic(draw: random.Random, count: int, mean: float = 0.77) -> list[Observation]:
    """Requests whose confidence has this mean."""
    made = []
    for _ in range(count):
        score = draw.betavariate(10 * mean, 10 * (1 - mean))
        length = int(draw.lognormvariate(3.5, 0.5))
        made.append(Observation(score, length, score < 0.6, draw.random() < 0.02, draw.random() < 0.01, "latin"))
    return made


def run(reference: DriftReference, requests: list[Observation]) -> DriftCounts:
    state = DriftCounts(policy_sha256="0" * 64)
    for request in requests:
        state = add_observation(state, reference, request)
    return state


def test_stable_traffic_rarely_raises_an_alarm() -> None:
    alarms = 0
    for seed in range(20):
        draw = random.Random(seed)
        alarms += bool(run(reference_of(traffic(draw, 400)), traffic(draw, 4000)).alarms)
    assert alarms <= 1  # 5 % are allowed


def test_a_drop_of_confidence_is_found_within_two_blocks() -> None:
    found = 0
    for seed in range(20):
        draw = random.Random(seed)
        state = run(reference_of(traffic(draw, 400)), traffic(draw, 2 * BLOCK, mean=0.68))
        found += any(alarm.feature in ("score", "deferred") for alarm in state.alarms)
    assert found >= 18


@pytest.mark.parametrize(
    ("feature", "change"),
    [("length", {"length": 400}), ("script", {"script": "greek"}), ("invalid", {"invalid": True}),
     ("truncated", {"truncated": True}), ("deferred", {"deferred": True}), ("score", {"score": None})],
)  # fmt: skip
def test_every_feature_can_raise_its_own_alarm(feature: str, change: dict[str, object]) -> None:
    draw = random.Random(3)
    reference = reference_of(traffic(draw, 400))
    changed = [replace(each, **change) if i % 3 == 0 else each for i, each in enumerate(traffic(draw, BLOCK))]  # type: ignore[arg-type]
    state = run(reference, changed)
    assert [alarm.feature for alarm in state.alarms] == [feature]
    assert state.alarms[0].block == 1


def test_counts_of_devices_add_up() -> None:
    draw = random.Random(4)
    reference = reference_of(traffic(draw, 400))
    requests = traffic(draw, 500)
    parts = [run(reference, requests[:230]), run(reference, requests[230:])]
    merged, whole = merge_counts(parts), run(reference, requests)
    assert merged.requests == whole.requests == 500 and merged.merged == 2
    sums = {
        feature: [a + b for a, b in zip(whole.total[feature], whole.current[feature], strict=True)]
        for feature in FEATURES
    }
    assert {feature: list(merged.total[feature]) for feature in FEATURES} == sums
    with pytest.raises(UsageError, match="Only counts of one policy"):
        merge_counts([parts[0], parts[1].model_copy(update={"policy_sha256": "1" * 64})])


def test_noise_is_of_the_right_size_and_leaves_no_negative_count() -> None:
    state = DriftCounts(policy_sha256="", total={"length": (1000,) * 3000, "score": (0,) * 3000})
    noisy = with_noise(state, 0.5).total
    off = [abs(count - 1000) for count in noisy["length"]]
    assert sum(off) / len(off) == pytest.approx(2.0, rel=0.15)  # the mean distance of Laplace noise is its scale
    assert min(noisy["score"]) == 0


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "latin"),
        ("привет, x", "cyrillic"),
        ("你好 abc 世界", "east_asian"),
        ("123 !", "none"),
        ("ᚠᚢ", "other"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script
