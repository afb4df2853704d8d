"""Gate: judge the measurements of a language model by the recipe's thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.core.artifacts.metrics import Fidelity, Metrics
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Gates, Recipe, Target
from potstill.core.steps import Done, Stage
from potstill.stages.gate.gates import (
    better_gate,
    drop_gate,
    floor_gate,
    limit_gate,
    overall,
    retention_gate,
    undecided,
)
from potstill.stages.gate.several import confirm_failures

__all__ = ["STAGE", "GateInputs", "judge"]

_MB = 1e6
_NO_RIGHT_ANSWERS = "no test row says what is right"


@dataclass(frozen=True)
class GateInputs:
    """What the verdict depends on.

    trained         what the training of the student and its control did
    distributions   whether the teacher gives whole distributions to compare with
    """

    gates: Gates
    target: Target
    metrics: HashedPath
    trained: HashedPath | None
    distributions: bool


def _inputs(recipe: Recipe, done: Done) -> GateInputs:
    return GateInputs(
        gates=recipe.gates,
        target=recipe.target,
        metrics=done.path("evaluate", Metrics.FILE),
        trained=done.optional_path("train", Trained.FILE),
        distributions=recipe.teacher.kind == "local",
    )


def _run(inputs: GateInputs, out: Path) -> None:
    judge(inputs).write(out)


STAGE = Stage(name="gate", reads=("train", "evaluate"), inputs=_inputs, run=_run, version=6)


def judge(inputs: GateInputs) -> Verdict:
    """Judge every gate that the recipe asks for, and add notes on what it does not ask for."""
    metrics = Metrics.read(inputs.metrics.path.parent)
    found = (
        *_answer_gates(inputs, metrics),
        *_fidelity_gates(inputs, metrics.models.gguf.fidelity),
        *_budget_gates(inputs.target, metrics),
    )
    results, notes = confirm_failures(found, inputs.gates.alpha), tuple(_notes(inputs, metrics))
    return Verdict(verdict=overall(results), confidence=metrics.confidence, gates=results, notes=notes)


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
        yield (
            drop_gate(name, pair, gates.quantization_drop, alpha, key=key)
            if pair
            else undecided(key, name, gates.quantization_drop, _NO_RIGHT_ANSWERS)
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


def _budget_gates(target: Target, metrics: Metrics) -> Iterator[GateResult]:
    """Gates on size, memory and speed."""
    size, runtime = metrics.models.gguf.bytes, metrics.runtime
    if target.file_mb is not None and size is not None:
        yield limit_gate("file size", size / _MB, target.file_mb, unit="MB", key="target.file_mb")
    if target.memory_mb is not None:
        yield limit_gate("peak memory", runtime.peak_rss_mb, target.memory_mb, unit="MB", key="target.memory_mb")
    if target.ttft_ms is not None:
        s, name = runtime.ttft_ms, "time to first token"
        yield limit_gate(name, s.median, target.ttft_ms, s.low, _or_infinite(s.high), "ms", key="target.ttft_ms")
    if target.decode_tokens_per_s is not None:
        s, key, least = runtime.decode_tokens_per_s, "target.decode_tokens_per_s", target.decode_tokens_per_s
        yield limit_gate("decode speed", s.median, least, s.low, _or_infinite(s.high), "tokens/s", "min", key=key)


def _or_infinite(high: float | None) -> float:
    return math.inf if high is None else high


def _notes(inputs: GateInputs, metrics: Metrics) -> Iterator[str]:
    """What the verdict says although no gate asks for it: leaked rows, wrong answers, what training gave."""
    if metrics.leaked.sentence:
        yield metrics.leaked.sentence
    models = metrics.models
    yield from filter(None, (models.gguf.mistakes("the shipped file"), models.teacher.mistakes("the teacher")))
    if inputs.trained:
        trained = Trained.read(inputs.trained.path.parent)
        yield from filter(None, (models.gain(), models.harm(trained.student.learning_rate), *trained.findings()))
    readings = metrics.models.gguf.readings
    if readings and readings.different:
        yield readings.sentence
    pair = metrics.paired.student_vs_control
    if pair and not inputs.gates.beats_control:
        yield f"better than control (no gate): {better_gate(pair, inputs.gates.alpha).detail}"
