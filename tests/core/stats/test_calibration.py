"""Expected calibration error and Brier score, compared with other ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.stats import brier_scores, calibrated_error, calibration_error

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def by_numpy(confidences: list[float], right: list[bool]) -> float:
    """The error for confidences that are all different."""
    order = np.argsort(confidences)
    p, y = np.array(confidences)[order], np.array(right, float)[order]
    bins = min(15, len(p))
    cuts = [len(p) * i // bins for i in range(1, bins)]
    parts = zip(np.split(p, cuts), np.split(y, cuts), strict=True)
    return float(sum(len(a) * abs(a.mean() - b.mean()) for a, b in parts) / len(p))


def test_golden_values() -> None:
    assert brier_scores([0.9, 0.8, 0.3], [True, False, False]) == pytest.approx([0.01, 0.64, 0.09])
    # 30 items in groups of two: (0.25, 0.25) with one right, and so on
    sure = [i / 30 for i in range(30)]
    assert calibration_error(sure, [i % 2 == 0 for i in range(30)]) == pytest.approx(
        sum(abs((4 * g + 1) / 60 - 0.5) for g in range(15)) / 15
    )
    assert calibration_error([0.7] * 10, [True] * 7 + [False] * 3) == pytest.approx(0)
    assert calibration_error([1.0] * 8, [True] * 4 + [False] * 4) == pytest.approx(0.5)
    assert calibrated_error([0.0, 1.0, 1.0]) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80, unique=True), st.randoms(use_true_random=False))
def test_the_error_is_numpys(confidences: list[float], random: object) -> None:
    right = [hash((round(c, 6), 7)) % 3 > 0 for c in confidences]
    assert calibration_error(confidences, right) == pytest.approx(by_numpy(confidences, right), abs=1e-12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(pairs: list[tuple[float, bool]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    errors = [calibration_error([p for p, _ in some], [y for _, y in some]) for some in (pairs, shuffled)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-12)


@given(PAIRS)
def test_bounds(pairs: list[tuple[float, bool]]) -> None:
    confidences, right = [p for p, _ in pairs], [y for _, y in pairs]
    error, over = calibration_error(confidences, right), math.fsum(confidences) / len(pairs) - sum(right) / len(pairs)
    assert abs(over) - 1e-12 <= error <= 1
    # the calibration error of a group is at most the root of its mean squared difference
    assert error <= math.sqrt(math.fsum(brier_scores(confidences, right)) / len(pairs)) + 1e-12


@pytest.mark.parametrize(("n", "shape"), [(150, (8, 2)), (600, (5, 1)), (600, (40, 1)), (3000, (2, 2))])
def test_a_calibrated_model_shows_the_calibrated_error(n: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(n)
    found, expected = [], []
    for _ in range(40):
        p = rng.beta(*shape, n)
        found.append(calibration_error(p.tolist(), (rng.random(n) < p).tolist()))
        expected.append(calibrated_error(p.tolist()))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.12)


def test_what_is_refused() -> None:
    for wrong in ([], [1.2], [math.nan], [-0.1]):
        with pytest.raises(ValueError, match="confidence"):
            calibration_error(wrong, [True] * len(wrong))
    with pytest.raises(ValueError, match=r"longer|shorter"):
        calibration_error([0.5], [True, False])
    with pytest.raises(ValueError, match=r"longer|shorter"):
        brier_scores([0.5, 0.5], [True])
