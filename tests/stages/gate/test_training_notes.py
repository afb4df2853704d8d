"""The verdict says what training gave the student, and warns where it did harm."""

from __future__ import annotations

from pathlib import Path

from finished_run import finished_run
from potstill.core.artifacts.metrics import Metrics, ModelMetrics
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import Verdict
from potstill.stages.gate.stage import STAGE
from stage_runs import run_stage


def notes(folder: Path, start: ModelMetrics | None, trained: dict[str, object]) -> str:
    """The notes on a run whose student had these metrics before training."""
    recipe, steps = finished_run(folder / "run")
    whole = Metrics.read(steps["evaluate"])
    whole.model_copy(update={"models": whole.models.model_copy(update={"start": start})}).write(steps["evaluate"])
    summary = Trained.read(steps["train"])
    student = summary.student.model_copy(update=trained)
    summary.model_copy(update={"student": student}).write(steps["train"])
    run_stage(STAGE, recipe, steps, folder / "gate")
    return "\n".join(Verdict.read(folder / "gate").notes)


def before(folder: Path, kl: float) -> ModelMetrics:
    """The student before training, at this distance from the teacher."""
    start = Metrics.read(finished_run(folder / "other")[1]["evaluate"]).models.start
    assert start and start.fidelity
    return start.model_copy(update={"fidelity": start.fidelity.model_copy(update={"kl_mean": kl})})


def test_the_start_stands_beside_what_was_trained(tmp_path: Path) -> None:
    said = notes(tmp_path, before(tmp_path, 0.2411), {})
    assert "Before training, the student had 284 of 430 test rows right; after it, the student 408" in said
    assert "and its control 369." in said
    assert "0.241 nats per token before training; after it, the student 0.0294 and its control 0.147." in said
    assert "away from its teacher" not in said and "keeps the weights" not in said


def test_a_student_that_moved_away_from_its_teacher_is_warned_about(tmp_path: Path) -> None:
    said = notes(tmp_path, before(tmp_path, 0.0007), {"learning_rate": 5e-4})
    assert "the KL rose from 0.0007 to 0.0294 nats per token. Lower train.learning_rate, which is 0.0005." in said


def test_the_kept_weights_and_a_bad_end_are_named(tmp_path: Path) -> None:
    _, steps = finished_run(tmp_path / "points")
    first, *rest = Trained.read(steps["train"]).student.validation
    points = (first.model_copy(update={"loss": 0.01}), *(p.model_copy(update={"loss": 0.2}) for p in rest))
    said = notes(tmp_path, None, {"kept": 0, "validation": points})
    assert "The student keeps the weights that it had before training" in said
    assert "rose from 0.01 to 0.2 nats. Lower train.learning_rate, which is 0.001." in said
    assert "test rows right" not in said  # random weights have nothing to compare with
