"""What a run has done so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from potstill.core.steps import StepResult

__all__ = ["RunResult"]


@dataclass
class RunResult:
    """The finished steps of a run by stage, and the verdict once the gate stage has finished."""

    dir: Path
    variant: str = ""
    steps: dict[str, StepResult] = field(default_factory=dict)
    verdict: str | None = None

    def folder(self, stage: str) -> Path:
        """Directory of a finished step."""
        return self.steps[stage].dir

    def page(self, name: str) -> Path:
        """`report.html` or `run.json` of this run, or of its variant in a sweep."""
        stem, dot, suffix = name.partition(".")
        return self.dir / (f"{stem}.{self.variant}{dot}{suffix}" if self.variant else name)
