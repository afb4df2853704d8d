"""The recipe's gates, applied to what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from potstill.core.files import read_json_object, write_json
from potstill.core.recipe import Recipe
from potstill.stages.evaluate.answers import read_answers
from potstill.stages.gate.gates import (
    GateResult,
    better_gate,
    floor_gate,
    limit_gate,
    overall,
    paired_gate,
    retention_gate,
)

__all__ = ["judge_run"]

_MB = 1e6


def _right(evaluated: Path, model: str) -> list[bool]:
    """Whether each judged test row was answered right, in order."""
    path = evaluated / f"answers-{model}.jsonl"
    return [a.exact for a in read_answers(path) if a.exact is not None] if path.exists() else []


def _unmeasured(name: str, threshold: float, what: str) -> GateResult:
    """A gate that was asked for and has nothing to judge: never a silent pass."""
    return GateResult(name, "INCONCLUSIVE", None, None, None, threshold, "", f"not judged: {what}")


def _answer_gates(recipe: Recipe, evaluated: Path, models: dict[str, Any]) -> Iterator[GateResult]:
    """Gates on the shipped file's answers."""
    gates, alpha = recipe.gates, recipe.gates.alpha
    shipped = _right(evaluated, "gguf")
    missing = "the test rows have no golds"
    floors = {"exact": gates.exact} | {f"exact {b}": f for b, f in gates.behaviours.items()}
    for name, floor in floors.items():
        if floor is None:
            continue
        behaviour = name.removeprefix("exact").strip()
        rate = models["gguf"]["behaviours"].get(behaviour) if behaviour else models["gguf"]["exact"]
        yield floor_gate(rate["k"], rate["n"], floor, alpha, name=name) if rate else _unmeasured(name, floor, missing)
    if gates.retention is not None:
        name, teacher = "retention of teacher", _right(evaluated, "teacher")
        if teacher:
            yield retention_gate(shipped, teacher, gates.retention, alpha, name=name)
        else:
            yield _unmeasured(name, gates.retention, missing)
    if gates.beats_control:
        control = _right(evaluated, "control")
        if control:
            yield better_gate(_right(evaluated, "student"), control, alpha, name="distilled over control")
        else:
            yield _unmeasured("distilled over control", 0.0, missing)
    if gates.quantization_drop is not None:
        name = "drop by quantization"
        if shipped:
            yield paired_gate(name, shipped, _right(evaluated, "student"), gates.quantization_drop, alpha)
        else:
            yield _unmeasured(name, gates.quantization_drop, missing)


def _notes(recipe: Recipe, evaluated: Path) -> list[str]:
    """What is told though the recipe has no gate for it: whether distillation paid."""
    student, control = _right(evaluated, "student"), _right(evaluated, "control")
    if recipe.gates.beats_control or not control:
        return []
    return [f"distilled over control (no gate): {better_gate(student, control, recipe.gates.alpha).detail}"]


def _fidelity_gates(recipe: Recipe, fidelity: dict[str, Any] | None) -> Iterator[GateResult]:
    """Gates on how close the shipped file's distributions are to the teacher's."""
    kinds: dict[str, tuple[float | None, str, Literal["max", "min"], str]] = {
        "kl_mean": (recipe.gates.kl_mean, "nats", "max", "kl"),
        "top1_agreement": (recipe.gates.top1_agreement, "rate", "min", "top1"),
    }
    for name, (limit, unit, kind, stem) in kinds.items():
        if limit is None:
            continue
        if fidelity is None:
            missing = (
                "an endpoint gives no distributions to compare with"
                if recipe.teacher.kind == "api"
                else "no answer of the teacher could be compared token by token"
            )
            yield _unmeasured(name, limit, missing)
        else:
            yield limit_gate(name, fidelity[name], limit, fidelity[f"{stem}_low"], fidelity[f"{stem}_high"], unit, kind)


def _budget_gates(recipe: Recipe, metrics: dict[str, Any]) -> Iterator[GateResult]:
    """Gates on size, memory and speed."""
    target, runtime = recipe.target, metrics["runtime"]
    if target.file_mb is not None:
        yield limit_gate("file size", metrics["models"]["gguf"]["bytes"] / _MB, target.file_mb, unit="MB")
    if target.memory_mb is not None:
        yield limit_gate("peak memory", runtime["peak_rss_mb"], target.memory_mb, unit="MB")
    if target.ttft_ms is not None:
        s = runtime["ttft_ms"]
        yield limit_gate("time to first token", s["median"], target.ttft_ms, s["low"], s["high"], "ms")
    if target.decode_tokens_per_s is not None:
        s = runtime["decode_tokens_per_s"]
        yield limit_gate(
            "decode speed", s["median"], target.decode_tokens_per_s, s["low"], s["high"], "tokens/s", "min"
        )


def judge_run(recipe: Recipe, evaluated: Path, out: Path) -> None:
    """Write `verdict.json`: every gate the recipe asks for, what they come to, and what is told beside them."""
    metrics = read_json_object(evaluated / "metrics.json")
    results = [
        *_answer_gates(recipe, evaluated, metrics["models"]),
        *_fidelity_gates(recipe, metrics["models"]["gguf"]["fidelity"]),
        *_budget_gates(recipe, metrics),
    ]
    verdict = {"verdict": overall(results), "gates": [asdict(r) for r in results], "notes": _notes(recipe, evaluated)}
    write_json(out / "verdict.json", verdict)
