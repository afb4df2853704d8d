"""Gate: judge the measurements of a classifier by the recipe's thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.core.artifacts.metrics import ClassifierMetrics
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierGates, ClassifierRecipe
from potstill.core.steps import Done, Stage
from potstill.stages.gate.gates import better_gate, floor_gate, limit_gate, nothing_right, overall, retention_gate
from potstill.stages.gate.several import confirm_failures

__all__ = ["STAGE", "ClassifierGateInputs"]


@dataclass(frozen=True)
class ClassifierGateInputs:
    """What the verdict depends on; `trained` is what the training of the student and its control did."""

    gates: ClassifierGates
    metrics: HashedPath
    trained: HashedPath


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierGateInputs:
    metrics, trained = done.path("evaluate", ClassifierMetrics.FILE), done.path("train", Trained.FILE)
    return ClassifierGateInputs(recipe.gates, metrics, trained)


def _run(inputs: ClassifierGateInputs, out: Path) -> None:
    metrics = ClassifierMetrics.read(inputs.metrics.path.parent)
    results = confirm_failures(tuple(_gates(inputs.gates, metrics)), inputs.gates.alpha)
    notes = (*_notes(inputs.gates, metrics), *Trained.read(inputs.trained.path.parent).findings())
    Verdict(verdict=overall(results), confidence=metrics.confidence, gates=results, notes=notes).write(out)


STAGE = Stage(name="gate", reads=("train", "evaluate"), inputs=_inputs, run=_run, version=6)


def _gates(gates: ClassifierGates, metrics: ClassifierMetrics) -> Iterator[GateResult]:
    alpha, models, control = gates.alpha, metrics.models, metrics.paired.student_vs_control
    if gates.exact is not None:
        yield floor_gate(models.student.exact, gates.exact, alpha, name="accuracy", key="gates.exact")
    if gates.retention is not None:
        name, pair = "retention of teacher", metrics.paired.student_vs_teacher
        yield retention_gate(pair, gates.retention, alpha, name=name, key="gates.retention")
    if gates.beats_control and control:
        yield better_gate(control, alpha, name="better than control", key="gates.beats_control")
    if gates.parameters is not None:
        share = models.student.params / models.teacher.params
        yield limit_gate("parameters", share, gates.parameters, unit="ratio", key="gates.parameters")
    if gates.speedup is not None:
        s, key = metrics.speed.speedup, "gates.speedup"
        high = math.inf if s.high is None else s.high
        yield limit_gate("speed-up", s.median, gates.speedup, s.low, high, "x", "min", key=key)


def _notes(gates: ClassifierGates, metrics: ClassifierMetrics) -> Iterator[str]:
    """Notes that no gate asks for: leaked test rows, and the effect of training."""
    if metrics.leaked.sentence:
        yield metrics.leaked.sentence
    if not metrics.models.teacher.exact.k:
        yield nothing_right(metrics.models.teacher.exact)
    yield metrics.models.gain()
    control = metrics.paired.student_vs_control
    if control and not gates.beats_control:
        yield f"better than control (no gate): {better_gate(control, gates.alpha).detail}"
