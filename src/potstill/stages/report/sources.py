"""Training curves, and where everything came from."""

from __future__ import annotations

import json
from typing import Any

from potstill.core.format import format_duration
from potstill.stages.report.charts import Line, training_chart
from potstill.stages.report.facts import Facts
from potstill.stages.report.words import MODELS, count, size

__all__ = ["tell_origin", "tell_training"]

_SHORT = 12
_STUDENT = {"teacher_layers": "the teacher's own layers", "scratch": "random weights", "checkpoint": "a checkpoint"}


# ---- training ----


def tell_training(facts: Facts) -> dict[str, Any] | None:
    """Charts of what was logged; None when nothing was."""
    if not facts.logs:
        return None
    charts = [
        _chart(facts, "cross_entropy", "Cross-entropy on the teacher's answers", ("student", "control")),
        _chart(facts, "divergence", "Divergence from the teacher", ("student",)),
    ]
    summaries = [
        {"name": "Distilled student" if name == "student" else MODELS[name], **told}
        for name in ("student", "control")
        if (told := _summary(facts.trained.get(name)))
    ]
    return {
        "charts": [c for c in charts if c],
        "summaries": summaries,
        "models": [{"key": name, "name": _curve_name(name)} for name in facts.logs],
    }


def _curve_name(name: str) -> str:
    return "Distilled student" if name == "student" else MODELS[name]


def _chart(facts: Facts, key: str, title: str, models: tuple[str, ...]) -> dict[str, Any] | None:
    """One quantity over steps: training as a line, validation as marks; None where it was not logged."""
    lines, said = [], []
    for name in models:
        log = facts.logs.get(name, [])
        for column, dotted in ((key, False), (f"validation_{key}", True)):
            points = [(line["step"] + 1, line[column]) for line in log if line.get(column)]
            if points:
                x, y = zip(*points, strict=True)
                lines.append(Line(name, x, y, dotted))
                what = "validation" if dotted else "training"
                said.append(f"{_curve_name(name)}, {what}: from {y[0]:.3g} to {y[-1]:.3g}")
    if not lines:
        return None
    label = f"{title}, nats a token, over optimizer steps. {'; '.join(said)}."
    return {"title": title, "chart": training_chart(lines, f"curve-{key}", label), "said": said}


def _summary(trained: dict[str, Any] | None) -> dict[str, str] | None:
    if not trained:
        return None
    return {
        "steps": f"{trained['steps']:,}",
        "tokens": f"{count(trained['tokens'])}, {count(trained['supervised_tokens'])} of them learnt from",
        "seconds": _duration(trained["seconds"]),
    }


def _duration(seconds: float) -> str:
    return format_duration(seconds, short=True)


# ---- provenance ----


def tell_origin(facts: Facts) -> dict[str, Any]:
    """Teacher, data, files and steps, each with what identifies it."""
    manifest = facts.manifest
    return {
        "facts": [(name, value) for name, value in _facts(facts) if value],
        "data": _data(manifest.get("data", {})),
        "files": [
            {"name": name, "size": size(entry["bytes"]), "sha256": entry["sha256"]}
            for name, entry in manifest.get("files", {}).items()
        ],
        "steps": [
            {
                "name": name,
                "seconds": _duration(stamp["seconds"]),
                "fingerprint": stamp["fingerprint"],
                "commit": (stamp.get("git_commit") or "")[:_SHORT],
            }
            for name, stamp in facts.stamps.items()
        ],
        "recipe": json.dumps(manifest["recipe"], indent=2, ensure_ascii=False) if "recipe" in manifest else None,
        "recipe_sha256": manifest.get("recipe_sha256"),
    }


def _facts(facts: Facts) -> list[tuple[str, str | None]]:
    recipe, teacher = facts.recipe, facts.manifest.get("teacher", {})
    student = facts.manifest.get("student", {})
    answers = facts.manifest.get("answers", {}).get("train")
    kept = None
    if answers:
        aside = sum(answers["set_aside"].values())
        reasons = ", ".join(f"{n} {reason}" for reason, n in answers["set_aside"].items())
        kept = f"{answers['kept']:,} of {answers['prompts']:,}"
        kept += f"; {aside:,} set aside ({reasons})" if aside else "; none set aside"
    return [
        ("Teacher", teacher.get("name")),
        ("Revision", teacher.get("revision")),
        ("Teacher's weights, SHA-256", teacher.get("weights_sha256")),
        ("Endpoint", teacher.get("endpoint")),
        ("Teacher's licence", recipe.teacher.license),
        ("Student began from", f"{_STUDENT[recipe.student.init]} ({student.get('base_model', '')})".replace(" ()", "")),
        ("Answers learnt from", kept),
        ("Licence of the data", recipe.data.license),
        ("Licence of this model", recipe.package.license),
        ("Quantization", recipe.export.quantization),
        ("Parity with the checkpoint", _parity(facts.parity)),
        ("Versions", ", ".join(f"{k} {v}" for k, v in facts.manifest.get("versions", {}).items())),
    ]


def _parity(parity: dict[str, Any]) -> str | None:
    found = parity.get("log_probs")
    if not found:
        return None
    return (
        f"before quantization, log-probabilities of {found['tokens']:,} tokens differ by at most "
        f"{found['max_difference']:.2g} nats"
    )


def _data(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "file": entry["file"], "rows": entry.get("rows"), "sha256": entry["sha256"]}
        for name, entry in data.items()
        if isinstance(entry, dict)
    ]
