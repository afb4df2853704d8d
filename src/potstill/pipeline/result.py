"""What a run has done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from potstill.core.artifacts.run import RunReport, StageRun, WorthEntry
from potstill.core.artifacts.verdict import VerdictWord
from potstill.core.artifacts.worth import Worth
from potstill.core.steps import StepResult
from potstill.pipeline.metrics import classifier_run_metrics, read_worth, run_metrics

__all__ = ["RunResult"]


@dataclass
class RunResult:
    """The finished steps of a run by stage, and the verdict once the gate stage has finished."""

    dir: Path
    variant: str = ""
    steps: dict[str, StepResult] = field(default_factory=dict)
    verdict: VerdictWord | None = None

    def folder(self, stage: str) -> Path:
        """Directory of a finished step."""
        return self.steps[stage].dir

    def page(self, name: str) -> Path:
        """`report.html` or `run.json` of this run, or of its variant in a sweep."""
        stem, dot, suffix = name.partition(".")
        return self.dir / (f"{stem}.{self.variant}{dot}{suffix}" if self.variant else name)

    def stages(self, *, absolute: bool = True) -> dict[str, StageRun]:
        """The finished stages; their directories relative to the run's directory unless `absolute`."""
        return {
            name: StageRun(dir=str(step.dir) if absolute else step.dir.name, seconds=step.seconds, cached=step.cached)
            for name, step in self.steps.items()
        }

    def worth(self) -> Worth | None:
        """The worth ladder, once it has been measured."""
        if "evaluate" not in self.steps:
            return None
        return read_worth(self.folder("evaluate"), classifier="speed" not in self.steps)

    def report(self, changes: Mapping[str, str] | None = None) -> RunReport:
        """What the run has come to; `changes` are those of a sweep's variant."""
        metrics = None
        if "evaluate" in self.steps:  # only a language model is timed in a step of its own
            evaluated = self.folder("evaluate")
            timed = self.folder("speed") if "speed" in self.steps else None
            metrics = run_metrics(evaluated, timed) if timed else classifier_run_metrics(evaluated)
        page = self.page("report.html")
        worth = self.worth()
        return RunReport(
            verdict=self.verdict,
            stages=self.stages(),
            metrics=metrics,
            worth=tuple(map(WorthEntry.of, worth.rungs)) if worth else None,
            package=str(self.folder("package") / "package") if "package" in self.steps else None,
            report=str(page) if "report" in self.steps and page.is_file() else None,
            changes=dict(changes) if changes else None,
        )
