"""The page's section on training: what it gave, from before the first step, and at which budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finished_run import finished_run, made_up_example
from potstill.core.artifacts.manifest import Manifest
from potstill.stages.package.stage import STAGE as PACKAGE
from potstill.stages.report.facts import Facts, read_facts
from potstill.stages.report.stage import STAGE
from potstill.stages.report.training import training_section
from stage_runs import run_stage, stage_inputs


def facts(folder: Path) -> Facts:
    """The facts of a finished run."""
    recipe, steps = finished_run(folder / "run")
    package = folder / "run" / "runs" / "package-000000000006"
    with made_up_example():
        run_stage(PACKAGE, recipe, steps, package)
    (package / "step.json").write_bytes((steps["gate"] / "step.json").read_bytes())
    assert Manifest.read(package / "package")
    return read_facts(stage_inputs(STAGE, recipe, steps | {"package": package}))


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
