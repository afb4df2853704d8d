"""Error rates of the gate against a release: false alarms, missed drops and false passes, in seeded repetitions.

Each repetition draws, for n items, how many broke and how many were fixed. Of exact McNemar tests at alpha = 0.05, with
85 % of the items right before and 10 % that change, 3.7 % fail an unchanged model at n = 500; a drop of 3 points is
caught in 64 % of releases, and in 90 % at n = 1000.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from potstill.core.stats import drop_p_value, holm, paired_interval

ALPHA = 0.05
REPETITIONS = 3000
SHARES = {0.5: 0.4, 0.85: 0.1, 0.95: 0.05, 0.99: 0.015}
"""Share of items that change in an unchanged model, by its rate of right answers."""


@cache
def p_value(broken: int, fixed: int) -> float:
    return drop_p_value(broken, fixed)


def drawn(n: int, differing: float, drop: float, repetitions: int = REPETITIONS) -> np.ndarray:
    """Counts of items that broke and of items that were fixed, (repetitions, 2)."""
    rng = np.random.default_rng([n, round(1e6 * differing), round(1e6 * (drop + 1))])
    shares = [(differing + drop) / 2, (differing - drop) / 2, 1 - differing]
    return rng.multinomial(n, shares, size=repetitions)[:, :2]


def share(counts: np.ndarray, holds: Callable[[int, int], bool]) -> float:
    return float(np.mean([holds(int(b), int(c)) for b, c in counts]))


def error(rate: float, repetitions: int = REPETITIONS) -> float:
    """Three standard errors of a share."""
    return 3 * float(np.sqrt(rate * (1 - rate) / repetitions))


@pytest.mark.parametrize("n", [50, 200, 600])
@pytest.mark.parametrize("rate", SHARES)
def test_an_unchanged_model_fails_at_most_as_often_as_alpha(n: int, rate: float) -> None:
    alarms = share(drawn(n, SHARES[rate], 0.0), lambda b, c: p_value(b, c) < ALPHA)
    assert alarms <= ALPHA + error(ALPHA)


@pytest.mark.parametrize("n", [50, 200, 600])
def test_holm_holds_alpha_over_all_tags_of_a_release(n: int) -> None:
    """Five tags and all items, which are their sum: the tests are not independent."""
    tags = [drawn(n, differing, 0.0, 1500) for differing in (0.4, 0.1, 0.05, 0.1001, 0.2)]
    failed = 0
    for place in range(1500):
        counts = [tag[place] for tag in tags]
        counts.append(np.sum(counts, axis=0))
        failed += min(holm([p_value(int(b), int(c)) for b, c in counts])) < ALPHA
    assert failed / 1500 <= ALPHA + error(ALPHA, 1500)


def test_a_drop_is_caught_as_often_as_published() -> None:
    for n, drop, published in ((500, 0.0, 0.037), (500, 0.03, 0.64), (1000, 0.03, 0.90)):
        caught = share(drawn(n, 0.1, drop), lambda b, c: p_value(b, c) < ALPHA)
        assert caught == pytest.approx(published, abs=0.02 + error(published)), (n, drop)


@pytest.mark.parametrize("n", [50, 200, 600])
@pytest.mark.parametrize("differing", [0.06, 0.2])
def test_a_drop_of_the_margin_passes_at_most_as_often_as_alpha(n: int, differing: float) -> None:
    margin = 0.05

    @cache
    def passes(b: int, c: int) -> bool:
        return paired_interval(b, c, n, 1 - 2 * ALPHA).high < margin

    assert share(drawn(n, differing, margin, 1000), passes) <= ALPHA + error(ALPHA, 1000)
