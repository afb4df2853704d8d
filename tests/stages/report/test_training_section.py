"""The page's section on training: what it gave, from before the first step, and at which budget."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from finished_run import finished_run
from potstill.core.artifacts.metrics import Metrics
from potstill.core.artifacts.training import Trained, read_log
from potstill.stages.report.facts import Facts
from potstill.stages.report.training import training_section


def facts(folder: Path) -> Facts:
    """The facts on the training of a finished run."""
    _, steps = finished_run(folder / "run")
    read: dict[str, Any] = dict.fromkeys(field.name for field in fields(Facts))
    read |= {"metrics": Metrics.read(steps["evaluate"]), "trained": Trained.read(steps["train"])}
    return Facts(**read | {"logs": {name: read_log(steps["train"], name) for name in ("student", "control")}})


def test_start_budget_and_validation_from_step_0_are_shown(tmp_path: Path) -> None:
    section = training_section(facts(tmp_path))
    assert section
    said = " ".join(section.said)
    assert "Before training, the student had 284 of 430 test rows right; after it, the student 408" in said
    assert "The student and its control had the same budget: the same start, rows and seed, and 240 optimizer" in said
    divergence = next(chart.chart for chart in section.charts if "Divergence" in chart.title)
    assert "Distilled student, validation: from 3.12 to" in divergence  # 3.1 + 0.05 / 2.4, before the first step
    assert [row.steps for row in section.summaries] == ["240", "240"]


def test_other_weights_than_the_last_are_named(tmp_path: Path) -> None:
    found = facts(tmp_path)
    early = found.trained.student.model_copy(update={"kept": 96})
    section = training_section(replace(found, trained=found.trained.model_copy(update={"student": early})))
    assert section
    assert section.summaries[0].steps == "240, weights of step 96"
    assert any("keeps the weights of step 96 of 240" in sentence for sentence in section.said)


def test_another_rung_that_ships_is_named(tmp_path: Path) -> None:
    found = facts(tmp_path)
    for ships, named in ((None, False), ("text", True)):
        section = training_section(replace(found, ships=ships))
        assert section
        assert ("The model that ships is not this student but the rung" in " ".join(section.said)) is named
