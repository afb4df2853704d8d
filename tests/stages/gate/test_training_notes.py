"""The verdict says what training gave the student, and warns where it did harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finished_run import finished_run, pair
from potstill.core.artifacts.metrics import FidelityDifference, Metrics
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import Verdict
from potstill.stages.gate.stage import STAGE
from stage_runs import run_stage


def notes(folder: Path, *, student: dict[str, Any] | None = None, start: bool = True, **paired: Any) -> str:
    """The notes on a run, with changes of its comparisons and of the training of its student."""
    recipe, steps = finished_run(folder / "run")
    whole = Metrics.read(steps["evaluate"])
    models = whole.models if start else whole.models.model_copy(update={"start": None})
    changes = {"models": models, "paired": whole.paired.model_copy(update=paired)}
    whole.model_copy(update=changes).write(steps["evaluate"])
    summary = Trained.read(steps["train"])
    trained = summary.student.model_copy(update=student or {})
    summary.model_copy(update={"student": trained}).write(steps["train"])
    run_stage(STAGE, recipe, steps, folder / "gate")
    return "\n".join(Verdict.read(folder / "gate").notes)


def test_the_start_stands_beside_what_was_trained(tmp_path: Path) -> None:
    said = notes(tmp_path)
    assert "Before training, the student had 284 of 430 test rows right; after it, the student 408" in said
    assert "and its control 369." in said
    assert "0.241 nats per token before training; after it, the student 0.0294 and its control 0.147." in said
    assert "Training" not in said and "keeps the weights" not in said


def test_a_student_that_moved_away_from_its_teacher_is_warned_about(tmp_path: Path) -> None:
    farther = FidelityDifference(kl=0.0083, low=0.0051, high=0.0121)
    said = notes(tmp_path, student={"learning_rate": 5e-4}, student_vs_start_kl=farther)
    assert "Training moved the student away from its teacher by 0.0083 nats of KL per token. Lower train." in said
    assert "which is 0.0005." in said


def test_a_student_that_lost_right_answers_is_warned_about(tmp_path: Path) -> None:
    said = notes(tmp_path, student_vs_start_kl=None, student_vs_start=pair(30, 2, 430))
    assert "Training cost the student 28 right answers. Lower train.learning_rate, which is 0.001." in said


def test_a_difference_that_may_be_chance_is_no_warning(tmp_path: Path) -> None:
    chance = FidelityDifference(kl=0.0003, low=-0.0001, high=0.0007)
    assert "Training" not in notes(tmp_path, student_vs_start_kl=chance, student_vs_start=pair(5, 2, 430))


def test_the_kept_weights_and_a_bad_end_are_named(tmp_path: Path) -> None:
    _, steps = finished_run(tmp_path / "points")
    first, *rest = Trained.read(steps["train"]).student.validation
    points = (first.model_copy(update={"loss": 0.01}), *(p.model_copy(update={"loss": 0.2}) for p in rest))
    said = notes(tmp_path, start=False, student={"kept": 0, "validation": points})
    assert "The student keeps the weights that it had before training" in said
    assert "rose from 0.01 to 0.2 nats. The" in said and "Lower train.learning_rate, which is 0.001." in said
    assert "test rows right" not in said  # random weights have nothing to compare with
