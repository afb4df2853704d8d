"""The worth ladder: values, intervals and p-values of its rungs, and which rung is the cheapest that is good enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats as scipy_stats

from finished_run import summary
from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.training import TrainSummary, ValidationPoint
from potstill.core.artifacts.worth import RungName, Worth
from potstill.core.records import LabelledRow
from potstill.stages.evaluate.bag_of_words import bag_of_words
from potstill.stages.evaluate.ladder import advice, measure_worth
from potstill.stages.evaluate.worth import Ladder, RungScores


def exact(right: dict[RungName, list[list[int]]], n: int) -> Worth:
    """A ladder of right answers, each rung with the row numbers that it gets right for each seed."""
    rungs = {
        rung: RungScores([[float(row in rows) for row in range(n)] for rows in seeds]) for rung, seeds in right.items()
    }
    return Ladder("exact", [1] * n, [None] * n, 0.9).worth(rungs, 0.9)


def test_right_answers_are_compared_by_the_exact_mcnemar_test() -> None:
    text, distributions = list(range(60)), [*range(10, 60), *range(60, 90)]
    found = exact({"start": [[]], "text": [text], "distributions": [distributions]}, 100)
    assert [rung.value for rung in found.rungs] == [0, 0.6, 0.8]
    step = found.rungs[2].step
    assert step is not None and step.gain == pytest.approx(0.2)
    assert step.p == pytest.approx(scipy_stats.binomtest(10, 40).pvalue)  # 10 lost, 30 gained
    assert step.low is not None and step.low > 0
    assert found.rungs[0].step is None
    assert found.over == "rows"
    assert found.best.rung == found.cheapest.rung == "distributions"
    assert "Every cheaper rung is shown to be worse" in found.sentence


def test_a_cheaper_rung_that_is_not_shown_to_be_worse_is_named() -> None:
    right = {"labels": [list(range(40))], "text": [list(range(80))], "distributions": [list(range(1, 82))]}
    found = exact(right, 100)  # type: ignore[arg-type]
    assert found.best.rung == "distributions"
    assert found.cheapest.rung == "text"
    assert "not shown to be worse than the best (the teacher's distributions) is the teacher's text" in found.sentence


def test_a_rung_that_ends_below_the_one_before_counts_as_worse() -> None:
    found = exact({"start": [list(range(70))], "text": [list(range(30))]}, 100)
    step = found.rungs[1].step
    assert step is not None and step.word == "worse" and step.gain == pytest.approx(-0.4)
    assert found.best.rung == found.cheapest.rung == "start"
    assert found.sentence == "The best rung is before training: no later rung is better."


def test_with_several_seeds_intervals_are_over_seeds() -> None:
    text, student = [[0], [0, 1], [0, 1, 2]], [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    found = exact({"start": [[]], "text": text, "distributions": student}, 10)
    rung = found.rungs[2]
    assert found.over == "seeds" and "3 training seeds" in found.interval_sentence
    assert rung.seeds == pytest.approx((0.4, 0.4, 0.6))
    low, high = scipy_stats.ttest_1samp([0.4, 0.4, 0.6], 0).confidence_interval(0.9)
    assert (rung.low, rung.high) == pytest.approx((low, high))
    assert rung.step is not None
    assert rung.step.p == pytest.approx(scipy_stats.ttest_1samp([0.3, 0.2, 0.3], 0).pvalue)
    start = found.rungs[0]  # it has no seeds, so no interval
    assert (start.low, start.high, start.seeds) == (None, None, ())
    assert found.rungs[1].step is not None and found.rungs[1].step.gain == pytest.approx(0.2)


def test_less_is_better_for_nats_per_byte() -> None:
    sizes = [100, 200, 50, 80, 120, 90]
    text = RungScores([[150, 310, 80, 110, 190, 130]])
    student = RungScores([[140, 280, 70, 105, 170, 120]])
    found = Ladder("nats_per_byte", sizes, [None] * 6, 0.9).worth({"text": text, "distributions": student}, 1.2)
    assert found.rungs[1].value == pytest.approx(885 / 640)
    assert found.best.rung == "distributions"
    step = found.rungs[1].step
    assert step is not None and step.gain == pytest.approx(85 / 640)
    assert step.word == "better" and step.p < 0.01
    assert found.cells()[1][1] == "1.383 nats/byte"


def test_rows_of_one_group_count_as_one_text() -> None:
    sizes, first, second = [100, 200, 50, 80], [150.0, 310, 80, 110], [140.0, 280, 70, 105]
    alone = Ladder("nats_per_byte", sizes, [None] * 4, 0.9)
    again = Ladder("nats_per_byte", sizes * 3, ["a", "b", "c", "d"] * 3, 0.9)
    for rung, repeated in zip(
        alone.worth({"text": RungScores([first]), "distributions": RungScores([second])}, None).rungs,
        again.worth({"text": RungScores([first * 3]), "distributions": RungScores([second * 3])}, None).rungs,
        strict=True,
    ):
        assert (repeated.value, repeated.low, repeated.high) == pytest.approx((rung.value, rung.low, rung.high))
        assert rung.step is None or (repeated.step is not None and repeated.step.p == pytest.approx(rung.step.p))


def test_one_rung_is_no_ladder() -> None:
    inputs: Any = SimpleNamespace(shown_rungs=(), student_rung="distributions", trained_rung="distributions")
    answers = dict[str, list[JudgedAnswer]](start=[], text=[], distributions=[]) | {"distributions-2": []}
    assert measure_worth(inputs, [], [], answers, 0.1) is None


def test_advice_follows_the_teachers_entropy_and_the_students_curve() -> None:
    def student(*losses: float) -> TrainSummary:
        points = [
            ValidationPoint(step=step, loss=loss, divergence=loss, cross_entropy=loss)
            for step, loss in zip((0, 100, 190, 240), losses, strict=True)
        ]
        return summary(0.1, divergence=True).model_copy(update={"steps": 240, "validation": tuple(points)})

    assert advice(0.4, student(2.0, 0.5, 0.4, 0.4)) == ()
    assert advice(None, student(2.0, 0.5, 0.4, 0.399)) == ()
    (certain,) = advice(0.011, student(2.0, 0.5, 0.4, 0.4))
    assert "0.011 nats per token" in certain
    (falling,) = advice(0.4, student(2.0, 0.5, 0.4, 0.36))
    assert "fell by 10.0 %" in falling
    assert advice(0.4, student(2.0, 0.5, 0.4, 0.5)) == ()  # it rose


def test_bag_of_words_learns_the_words_of_a_class() -> None:
    texts = {"lights on please": "light", "lights off": "light", "play a song": "music", "play jazz": "music"}
    rows = [LabelledRow(text=text, label=label) for text, label in texts.items()]
    assert bag_of_words(rows, ["turn the lights off", "play the blues", "unknown words"]) == ["light", "music", "light"]
