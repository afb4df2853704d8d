"""Fidelity: KL and agreement by hand, intervals that are never a point, and the difference of two models."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.stages.evaluate.fidelity import Divergences, fidelity, fidelity_difference


def pairs(rows: int, tokens: int, wrong: int = 0, noise: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of two-token distributions that agree everywhere but in the first `wrong` rows' first token."""
    out = []
    rng = np.random.default_rng(3)
    for row in range(rows):
        teacher = np.log(np.full((tokens, 2), [0.9, 0.1]))
        other = np.full((tokens, 2), [0.8, 0.2]) + noise * rng.uniform(-1, 1, (tokens, 1)) * [1, -1]
        if row < wrong:
            other[0] = [0.3, 0.7]
        out.append((teacher, np.log(other)))
    return out


def test_kl_and_agreement_by_hand() -> None:
    found = fidelity(Divergences.of(pairs(300, 10, wrong=3)), 0.9)
    usual = 0.9 * np.log(0.9 / 0.8) + 0.1 * np.log(0.1 / 0.2)
    unusual = 0.9 * np.log(0.9 / 0.3) + 0.1 * np.log(0.1 / 0.7)
    assert found.kl_mean == pytest.approx((2997 * usual + 3 * unusual) / 3000)
    assert (found.top1_agreement, found.tokens, found.rows) == (2997 / 3000, 3000, 300)
    assert found.kl_high is not None and 0 <= found.kl_low < found.kl_mean < found.kl_high
    assert 0.99 < found.top1_low < found.top1_agreement < found.top1_high < 1


def test_agreement_at_every_token_is_not_certainty() -> None:
    """3,000 tokens of 300 rows all agree: at most as much is known as from 300 independent tokens."""
    found = fidelity(Divergences.of(pairs(300, 10)), 0.9)
    assert (found.top1_agreement, found.top1_high) == (1.0, 1.0)
    assert found.top1_low == pytest.approx(0.05 ** (1 / 300))


def test_one_row_has_no_interval_of_kl() -> None:
    found = fidelity(Divergences.of(pairs(1, 10)), 0.9)
    assert (found.kl_low, found.kl_high) == (0.0, None)


def test_two_models_are_compared_row_by_row() -> None:
    """The rows differ much more than the models do, and the difference is still seen."""
    rng = np.random.default_rng(0)
    hard = [np.full(10, value) for value in rng.lognormal(-2, 1, 300)]
    agree = [np.full(10, True)] * 300
    student = Divergences(hard, agree)
    control = Divergences([row + 0.01 + 0.01 * rng.normal(size=10) for row in hard], agree)
    found = fidelity_difference(student, control, 0.9)
    assert found is not None and found.high < 0 and found.kl == pytest.approx(-0.01, abs=0.001)
    alone = fidelity(student, 0.9), fidelity(control, 0.9)
    assert alone[0].kl_high is not None and alone[0].kl_high > alone[1].kl_low  # their own intervals overlap
    assert fidelity_difference(Divergences(hard[:1], agree[:1]), Divergences(hard[:1], agree[:1]), 0.9) is None
