"""What a run is: run.json in its directory, and what `potstill run --json` prints."""

from __future__ import annotations

from typing import ClassVar

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.verdict import VerdictWord
from potstill.core.artifacts.worth import RungName, RungScore

__all__ = ["ClassifierRunMetrics", "RunMetrics", "RunRecord", "RunReport", "StageRun", "WorthEntry"]


class StageRun(Part):
    """One finished stage: its directory, the seconds that it took when it ran, and whether it was found finished."""

    dir: str
    seconds: float
    cached: bool


class RunRecord(Artifact):
    """The one page that says what a run is; it is written again as each stage ends.

    recipe_sha256   SHA-256 (hex) of the recipe's values
    verdict         None before the gate stage has finished
    """

    FILE: ClassVar[str] = "run.json"

    recipe_sha256: str
    verdict: VerdictWord | None
    stages: dict[str, StageRun]


class RunMetrics(Part):
    """The main numbers of a language model's run; None where a run has no such number.

    Rates are between 0 and 1; sizes in bytes; times in milliseconds; KL in nats per token; memory in 10^6 bytes.
    `start_exact` is the student's before training. `leaked_rows` is the number of test rows that were also trained on
    or used for validation, and are left out of every score. `ece` (expected calibration error) and `brier` (Brier
    score) are those of the student's checkpoint, before export.
    """

    teacher_exact: float | None
    start_exact: float | None
    student_exact: float | None
    control_exact: float | None
    retention: float | None
    gguf_bytes: int | None
    params_teacher: int | None
    params_student: int | None
    decode_tokens_per_s: float
    ttft_ms: float
    peak_rss_mb: float
    kl_mean: float | None
    top1_agreement: float | None
    leaked_rows: int
    ece: float | None = None
    brier: float | None = None


class ClassifierRunMetrics(Part):
    """The main numbers of a classifier's run; "exact" is accuracy, KL is in nats per row."""

    teacher_exact: float | None
    start_exact: float | None
    student_exact: float | None
    control_exact: float | None
    retention: float | None
    params_teacher: int
    params_student: int
    student_ms: float
    speedup: float
    kl_mean: float
    top1_agreement: float
    leaked_rows: int
    ece: float
    brier: float


class WorthEntry(Part):
    """A rung of the worth ladder: `value` is a rate or nats per byte, and `p` is against the rung before."""

    rung: RungName
    value: float
    low: float | None
    high: float | None
    n: int
    p: float | None

    @classmethod
    def of(cls, rung: RungScore) -> WorthEntry:
        """A rung in short."""
        p = rung.step.p if rung.step else None
        return cls(rung=rung.rung, value=rung.value, low=rung.low, high=rung.high, n=rung.n, p=p)


class RunReport(Part):
    """What `potstill run --json` prints: with `--until`, only what has run so far.

    changes   the recipe's keys that a sweep changed, with their values
    """

    verdict: VerdictWord | None
    stages: dict[str, StageRun]
    metrics: RunMetrics | ClassifierRunMetrics | None = None
    worth: tuple[WorthEntry, ...] | None = None
    package: str | None = None
    report: str | None = None
    changes: dict[str, str] | None = None
