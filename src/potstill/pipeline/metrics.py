"""The main numbers of a run, for `potstill run --json` and for a sweep's table."""

from __future__ import annotations

from pathlib import Path

from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics, PairedCounts, Rate
from potstill.core.artifacts.run import ClassifierRunMetrics, RunMetrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.worth import Worth

__all__ = ["classifier_run_metrics", "read_worth", "run_metrics"]


def run_metrics(evaluated: Path, timed: Path) -> RunMetrics:
    """The main numbers of a language model's run, from the directories of its evaluate and speed steps."""
    metrics, speed = Metrics.read(evaluated), MeasuredSpeed.read(timed)
    models = metrics.models
    fidelity = models.gguf.fidelity
    student = next((found for found in metrics.calibration if found.model == "student"), None)
    return RunMetrics(
        teacher_exact=_rate(models.teacher.exact),
        start_exact=_rate(models.start.exact) if models.start else None,
        student_exact=_rate(models.gguf.exact),
        control_exact=_rate(models.control.exact) if models.control else None,
        retention=_kept(metrics.paired.gguf_vs_teacher),
        gguf_bytes=models.gguf.bytes,
        params_teacher=models.teacher.params,
        params_student=models.student.params,
        decode_tokens_per_s=speed.decode_tokens_per_s.median,
        ttft_ms=speed.ttft_ms.median,
        peak_rss_mb=speed.peak_rss_mb,
        kl_mean=fidelity.kl_mean if fidelity else None,
        top1_agreement=fidelity.top1_agreement if fidelity else None,
        leaked_rows=metrics.leaked.rows,
        ece=student.ece if student else None,
        brier=student.brier if student else None,
    )


def classifier_run_metrics(evaluated: Path) -> ClassifierRunMetrics:
    """`run_metrics` of a classifier, where exact is accuracy."""
    metrics = ClassifierMetrics.read(evaluated)
    models, speed = metrics.models, metrics.speed
    teacher, student = models.teacher, models.student
    assert student.fidelity is not None
    calibration = next(found for found in metrics.calibration if found.model == "student")
    return ClassifierRunMetrics(
        teacher_exact=teacher.exact.rate,
        start_exact=models.start.exact.rate,
        student_exact=student.exact.rate,
        control_exact=models.control.exact.rate if models.control else None,
        retention=_kept(metrics.paired.student_vs_teacher),
        params_teacher=teacher.params,
        params_student=student.params,
        student_ms=speed.student_ms.median,
        speedup=speed.speedup.median,
        kl_mean=student.fidelity.kl_mean,
        top1_agreement=student.fidelity.top1_agreement,
        leaked_rows=metrics.leaked.rows,
        ece=calibration.ece,
        brier=calibration.brier,
    )


def read_worth(evaluated: Path, *, classifier: bool) -> Worth | None:
    """The worth ladder of a run, from the directory of its evaluate step."""
    return (ClassifierMetrics if classifier else Metrics).read(evaluated).worth


def _rate(found: Rate | None) -> float | None:
    return found.rate if found else None


def _kept(pair: PairedCounts | None) -> float | None:
    """Share of the teacher's right answers that are kept."""
    return pair.kept.rate if pair and pair.kept else None
