"""The main numbers of a run, for `potstill run --json` and for a sweep's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.core.artifacts.run import ClassifierRunMetrics, RunMetrics
from potstill.core.files import read_json_object

__all__ = ["run_metrics"]


def _rate(model: dict[str, Any] | None) -> float | None:
    return model["exact"]["rate"] if model and model["exact"] else None


def run_metrics(evaluated: Path, trained: Path) -> RunMetrics | ClassifierRunMetrics:
    """The main numbers of a run, from what its stages left."""
    metrics = read_json_object(evaluated / "metrics.json")
    if "gguf" not in metrics["models"]:
        return _classifier_metrics(metrics)
    trained_summary = read_json_object(trained / "summary.json")
    models, runtime = metrics["models"], metrics["runtime"]
    teacher, shipped = _rate(models["teacher"]), _rate(models["gguf"])
    fidelity = models["gguf"]["fidelity"] or {}
    return RunMetrics(
        **{
            "teacher_exact": teacher,
            "student_exact": shipped,
            "control_exact": _rate(models["control"]),
            "retention": shipped / teacher if shipped is not None and teacher else None,
            "gguf_bytes": models["gguf"]["bytes"],
            "params_teacher": models["teacher"]["params"],
            "params_student": trained_summary["params_student"],
            "decode_tokens_per_s": runtime["decode_tokens_per_s"]["median"],
            "ttft_ms": runtime["ttft_ms"]["median"],
            "peak_rss_mb": runtime["peak_rss_mb"],
            "kl_mean": fidelity.get("kl_mean"),
            "top1_agreement": fidelity.get("top1_agreement"),
        }
    )


def _classifier_metrics(metrics: dict[str, Any]) -> ClassifierRunMetrics:
    """`run_metrics` of a classifier: exact is accuracy."""
    models, speed = metrics["models"], metrics["speed"]
    teacher, student = models["teacher"], models["student"]
    return ClassifierRunMetrics(
        **{
            "teacher_exact": _rate(teacher),
            "student_exact": _rate(student),
            "control_exact": _rate(models.get("control")),
            "retention": student["exact"]["k"] / teacher["exact"]["k"] if teacher["exact"]["k"] else None,
            "params_teacher": teacher["params"],
            "params_student": student["params"],
            "student_ms": speed["student_ms"]["median"],
            "speedup": speed["speedup"]["median"],
            **student["fidelity"],
        }
    )
