"""From answers and their confidences to the numbers of a model, and the comparison of two."""

from __future__ import annotations

import pytest

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.stages.evaluate.calibration import (
    Confidences,
    answers_brier_difference,
    answers_calibration,
    brier_difference,
    calibration,
)


def said(values: list[tuple[bool | None, float | None]], groups: list[str] | None = None) -> list[JudgedAnswer]:
    return [
        JudgedAnswer(
            row_id=str(number), behaviour="answer", prompt="", text="", finish_reason="stop", exact=exact, parses=True,
            schema_valid=None, expected="", confidence=confidence, group=groups[number] if groups else None,
        )
        for number, (exact, confidence) in enumerate(values)
    ]  # fmt: skip


def test_numbers_of_a_model() -> None:
    answers = said([(True, 0.9), (True, 0.8), (False, 0.7), (None, 0.1)])
    (found,) = answers_calibration({"student": answers}, 0.9)
    assert (found.model, found.n) == ("student", 3)
    assert found.right == pytest.approx(2 / 3)
    assert found.confidence == pytest.approx(0.8)
    assert found.over == pytest.approx(0.8 - 2 / 3)
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.49) / 3)
    assert found.ece == pytest.approx((0.1 + 0.2 + 0.7) / 3)
    assert found.brier_low is not None and found.brier_high is not None
    assert found.brier_low < found.brier < found.brier_high
    assert found.cells()[:3] == ("distilled student", "3", "66.7 %")


def test_an_interval_stays_where_a_brier_score_can_be() -> None:
    for hit, sure in ((False, 1e-9), (False, 1.0), (True, 1.0)):
        (found,) = answers_calibration({"student": said([(hit, sure), (hit, 0.5), (hit, sure)])}, 0.9)
        assert found.brier_low is not None and found.brier_high is not None
        assert 0 <= found.brier_low <= found.brier <= found.brier_high <= 1


def test_models_without_confidences_or_right_answers_are_left_out() -> None:
    whole = said([(True, 0.9), (False, 0.2)])
    answers = {
        "teacher": said([(True, None), (False, 0.2)]),
        "start": None,
        "student": whole,
        "control": said([(None, 0.9)]),
        "labels": whole,
        "labels-2": whole,
    }
    assert [found.model for found in answers_calibration(answers, 0.9)] == ["student", "labels"]
    assert answers_brier_difference(whole, answers["teacher"], 0.9) is None
    assert answers_brier_difference(whole, None, 0.9) is None


def test_the_better_of_two_models_has_the_lower_score() -> None:
    right = [number % 4 > 0 for number in range(200)]
    groups = [None] * 200
    sure = Confidences([0.99 if hit else 0.4 for hit in right], right, groups)
    unsure = Confidences([0.8 if hit else 0.7 for hit in right], right, groups)
    found = brier_difference(sure, unsure, 0.9)
    assert found is not None
    assert found.brier == pytest.approx(0.75 * (0.01**2 - 0.2**2) + 0.25 * (0.4**2 - 0.7**2))
    assert found.high < 0
    assert "better" in found.sentence(0.9)
    mirrored = brier_difference(unsure, sure, 0.9)
    assert mirrored is not None and mirrored.low == pytest.approx(-found.high)
    assert "worse" in mirrored.sentence(0.9)


def test_rows_of_one_group_count_together() -> None:
    right = [bool(number // 10 % 2) for number in range(200)]
    values = [0.9] * 200
    alone = calibration("student", Confidences(values, right, [None] * 200), 0.9)
    together = calibration("student", Confidences(values, right, [str(number // 10) for number in range(200)]), 0.9)
    assert together.brier == alone.brier
    assert together.brier_high is not None and alone.brier_high is not None
    assert together.brier_high - together.brier > 2 * (alone.brier_high - alone.brier)
