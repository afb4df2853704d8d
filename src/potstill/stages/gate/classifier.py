"""Gate: judge the measurements of a classifier by the recipe's thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.core.artifacts.answers import ClassifiedRow, answers_file, read_answers
from potstill.core.artifacts.metrics import ClassifierMetrics
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ClassifierGates, ClassifierRecipe
from potstill.core.steps import Done, Stage
from potstill.stages.gate.gates import better_gate, floor_gate, limit_gate, overall, retention_gate

__all__ = ["STAGE", "ClassifierGateInputs"]


@dataclass(frozen=True)
class ClassifierGateInputs:
    """What the verdict depends on.

    trained   what the training of the student and its control did
    answers   those of each model to the test rows, by model
    """

    gates: ClassifierGates
    metrics: HashedPath
    trained: HashedPath
    answers: dict[str, HashedPath]


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierGateInputs:
    files = {name: done.optional_path("evaluate", answers_file(name)) for name in ("teacher", "student", "control")}
    answers = {name: path for name, path in files.items() if path}
    metrics, trained = done.path("evaluate", ClassifierMetrics.FILE), done.path("train", Trained.FILE)
    return ClassifierGateInputs(recipe.gates, metrics, trained, answers)


def _run(inputs: ClassifierGateInputs, out: Path) -> None:
    metrics = ClassifierMetrics.read(inputs.metrics.path.parent)
    right = {name: [a.exact for a in read_answers(file.path, ClassifiedRow)] for name, file in inputs.answers.items()}
    results = tuple(_gates(inputs.gates, metrics, right))
    notes = (*_notes(inputs.gates, metrics, right), *Trained.read(inputs.trained.path.parent).findings())
    Verdict(verdict=overall(results), gates=results, notes=notes).write(out)


STAGE = Stage(name="gate", reads=("train", "evaluate"), inputs=_inputs, run=_run, version=4)


def _gates(gates: ClassifierGates, metrics: ClassifierMetrics, right: dict[str, list[bool]]) -> Iterator[GateResult]:
    alpha, student, models = gates.alpha, right["student"], metrics.models
    if gates.exact is not None:
        yield floor_gate(sum(student), len(student), gates.exact, alpha, name="accuracy", key="gates.exact")
    if gates.retention is not None:
        name, key = "retention of teacher", "gates.retention"
        yield retention_gate(student, right["teacher"], gates.retention, alpha, name=name, key=key)
    if gates.beats_control:
        yield better_gate(student, right["control"], alpha, name="better than control", key="gates.beats_control")
    if gates.parameters is not None:
        share = models.student.params / models.teacher.params
        yield limit_gate("parameters", share, gates.parameters, unit="ratio", key="gates.parameters")
    if gates.speedup is not None:
        s = metrics.speed.speedup
        yield limit_gate("speed-up", s.median, gates.speedup, s.low, s.high, "x", "min", key="gates.speedup")


def _notes(gates: ClassifierGates, metrics: ClassifierMetrics, right: dict[str, list[bool]]) -> Iterator[str]:
    """What the verdict says although no gate asks for it: leaked test rows, and what training gave."""
    if metrics.leaked.rows:
        yield metrics.leaked.sentence
    yield metrics.models.gain()
    if "control" in right and not gates.beats_control:
        detail = better_gate(right["student"], right["control"], gates.alpha).detail
        yield f"better than control (no gate): {detail}"
