"""Gate: judge the measurements of a language model by the recipe's thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.components.models.handover import optional_file
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.metrics import Fidelity, Metrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Gates, Recipe, Target
from potstill.core.steps import Done, Stage
from potstill.stages.gate.budgets import budget_gates, measured_there
from potstill.stages.gate.gates import (
    better_gate,
    drop_gate,
    floor_gate,
    limit_gate,
    nothing_right,
    overall,
    retention_gate,
    undecided,
)
from potstill.stages.gate.several import confirm_failures

__all__ = ["STAGE", "GateInputs", "judge"]

_NO_RIGHT_ANSWERS = "no test row says what is right"
_NOTHING_TO_LOSE = "no test row was right before quantization"


@dataclass(frozen=True)
class GateInputs:
    """What the verdict depends on.

    trained         what the training of the student and its control did
    speed           what was measured on this machine
    measured        what was measured on the device
    gguf            the file that ships
    distributions   whether the teacher gives whole distributions to compare with
    """

    gates: Gates
    target: Target
    metrics: HashedPath
    trained: HashedPath | None
    speed: HashedPath
    measured: HashedPath | None
    gguf: HashedPath
    distributions: bool


def _inputs(recipe: Recipe, done: Done) -> GateInputs:
    return GateInputs(
        gates=recipe.gates,
        target=recipe.target,
        metrics=done.path("evaluate", Metrics.FILE),
        trained=done.optional_path("train", Trained.FILE),
        speed=done.path("speed", MeasuredSpeed.FILE),
        measured=optional_file(recipe.target.measured),
        gguf=done.path("export", done.read("export", Exported).file),
        distributions=recipe.teacher.kind == "local",
    )


def _run(inputs: GateInputs, out: Path) -> None:
    judge(inputs).write(out)


STAGE = Stage(name="gate", reads=("train", "export", "speed", "evaluate"), inputs=_inputs, run=_run, version=8)


def judge(inputs: GateInputs) -> Verdict:
    """Judge every gate that the recipe asks for, and add notes on what it does not ask for."""
    metrics, speed = Metrics.read(inputs.metrics.path.parent), MeasuredSpeed.read(inputs.speed.path.parent)
    here = speed.at(metrics.confidence)
    device = measured_there(inputs.measured, inputs.gguf, metrics.confidence)
    found = (
        *_answer_gates(inputs, metrics),
        *_fidelity_gates(inputs, metrics.models.gguf.fidelity),
        *budget_gates(inputs.target, inputs.gguf, here, inputs.measured),
    )
    results, notes = confirm_failures(found, inputs.gates.alpha), tuple(_notes(inputs, metrics))
    return Verdict(verdict=overall(results), confidence=metrics.confidence, gates=results, notes=notes, device=device)


def _answer_gates(inputs: GateInputs, metrics: Metrics) -> Iterator[GateResult]:
    """Gates on answers."""
    gates, alpha, shipped = inputs.gates, inputs.gates.alpha, metrics.models.gguf
    floors = {"gates.exact": ("exact match", gates.exact, shipped.exact)}
    for behaviour, minimum in gates.behaviours.items():
        rate = shipped.behaviours.get(behaviour)
        floors[f"gates.behaviours.{behaviour}"] = (f"exact match: {behaviour}", minimum, rate)
    for key, (name, floor, found) in floors.items():
        if floor is not None:
            yield (
                floor_gate(found, floor, alpha, name=name, key=key)
                if found
                else undecided(key, name, floor, _NO_RIGHT_ANSWERS)
            )
    paired = metrics.paired
    if gates.retention is not None:
        name, key, pair = "retention of teacher", "gates.retention", paired.gguf_vs_teacher
        yield (
            retention_gate(pair, gates.retention, alpha, name=name, key=key)
            if pair
            else undecided(key, name, gates.retention, _NO_RIGHT_ANSWERS)
        )
    if gates.beats_control:
        name, key, pair = "better than control", "gates.beats_control", paired.student_vs_control
        yield better_gate(pair, alpha, name=name, key=key) if pair else undecided(key, name, 0.0, _NO_RIGHT_ANSWERS)
    if gates.quantization_drop is not None:
        name, key, pair = "drop from quantization", "gates.quantization_drop", paired.gguf_vs_student
        before = metrics.models.student.exact
        yield (
            drop_gate(name, pair, gates.quantization_drop, alpha, key=key)
            if pair and before and before.k
            else undecided(key, name, gates.quantization_drop, _NOTHING_TO_LOSE if before else _NO_RIGHT_ANSWERS)
        )


def _fidelity_gates(inputs: GateInputs, fidelity: Fidelity | None) -> Iterator[GateResult]:
    """Gates on how close the shipped file's distributions are to the teacher's."""
    gates, name, key, f = inputs.gates, "mean KL", "gates.kl_mean", fidelity
    missing = (
        "none of the teacher's answers could be compared token by token"
        if inputs.distributions
        else "an endpoint gives no distributions to compare with"
    )
    if gates.kl_mean is not None:
        yield (
            limit_gate(name, f.kl_mean, gates.kl_mean, f.kl_low, _or_infinite(f.kl_high), "nats", key=key)
            if f
            else undecided(key, name, gates.kl_mean, missing)
        )
    if gates.top1_agreement is not None:
        name, key = "top-1 agreement", "gates.top1_agreement"
        yield (
            limit_gate(name, f.top1_agreement, gates.top1_agreement, f.top1_low, f.top1_high, "rate", "min", key=key)
            if f
            else undecided(key, name, gates.top1_agreement, missing)
        )


def _or_infinite(high: float | None) -> float:
    return math.inf if high is None else high


def _notes(inputs: GateInputs, metrics: Metrics) -> Iterator[str]:
    """Notes that no gate asks for: leaked rows, wrong answers, and the effect of training."""
    if metrics.leaked.sentence:
        yield metrics.leaked.sentence
    models = metrics.models
    if models.teacher.exact and not models.teacher.exact.k:
        yield nothing_right(models.teacher.exact)
    yield from filter(None, (models.gguf.mistakes("the shipped file"), models.teacher.mistakes("the teacher")))
    if inputs.trained:
        trained = Trained.read(inputs.trained.path.parent)
        yield from filter(None, (models.gain(), metrics.harm(trained.student.learning_rate), *trained.findings()))
    readings = metrics.models.gguf.readings
    if readings and readings.different:
        yield readings.with_example
    pair = metrics.paired.student_vs_control
    if pair and not inputs.gates.beats_control:
        yield f"better than control (no gate): {better_gate(pair, inputs.gates.alpha).detail}"
