"""Measure a distilled classifier beside its teacher and control, and judge it: accuracy, fidelity, size, speed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.core.files import read_json_lines, read_json_object, write_json, write_json_lines
from potstill.core.recipe import ClassifierRecipe
from potstill.core.records import LabelledRow, read_labelled
from potstill.core.stats import Interval, bootstrap_median, quantile
from potstill.stages.evaluate.answers import rate
from potstill.stages.gate.gates import GateResult, better_gate, floor_gate, limit_gate, overall, retention_gate

if TYPE_CHECKING:
    from torch import Tensor

    from potstill.components.runtimes.classifier import Classifier

__all__ = ["judge_classifier", "measure_classifier"]

_WARM_UP = 10


def measure_classifier(recipe: ClassifierRecipe, teacher_folder: Path, trained: Path, out: Path) -> None:
    """See `potstill.stages.evaluate.stage.run_classifier`."""
    import torch

    from potstill.components.runtimes.classifier import Classifier

    rows = read_labelled(recipe.data.test)
    folders = {"teacher": teacher_folder, "student": trained / "student", "control": trained / "control"}
    models = {name: Classifier(folder, recipe.data.context) for name, folder in folders.items() if folder.is_dir()}
    before = torch.get_num_threads()
    torch.set_num_threads(recipe.evaluate.threads)
    try:
        logits = {name: model.classify([row.text for row in rows]) for name, model in models.items()}
        speed = _speed(models["teacher"], models["student"], rows, recipe)
    finally:
        torch.set_num_threads(before)
    entries: dict[str, Any] = {}
    for name, model in models.items():
        predicted = [model.labels[number] for number in logits[name].argmax(-1).tolist()]
        _write_answers(out / f"answers-{name}.jsonl", rows, predicted)
        entries[name] = {
            "params": model.model.num_parameters(),
            "bytes": (folders[name] / "model.safetensors").stat().st_size,
            **_accuracy(rows, predicted, recipe.data.out_of_scope),
            "fidelity": None if name == "teacher" else _fidelity(logits["teacher"], logits[name]),
        }
    write_json(out / "metrics.json", {"models": entries, "speed": speed})


def _write_answers(path: Path, rows: Sequence[LabelledRow], predicted: Sequence[str]) -> None:
    """One line a test row: its text, its label, and what the model took it for."""
    pairs = zip(rows, predicted, strict=True)
    write_json_lines(path, ({"text": row.text, "label": row.label, "predicted": label} for row, label in pairs))


def _accuracy(rows: Sequence[LabelledRow], predicted: Sequence[str], out_of_scope: str | None) -> dict[str, Any]:
    """Rates over all rows, and over those of the classes and those out of scope, where the recipe tells them apart."""
    right = [row.label == label for row, label in zip(rows, predicted, strict=True)]
    inside = [row.label != out_of_scope for row in rows]
    told = out_of_scope is not None
    return {
        "exact": rate(right),
        "in_scope": rate([r for r, within in zip(right, inside, strict=True) if within]) if told else None,
        "out_of_scope": rate([r for r, within in zip(right, inside, strict=True) if not within]) if told else None,
    }


def _fidelity(teacher_BC: Tensor, student_BC: Tensor) -> dict[str, float]:
    """Mean KL(teacher || student), nats a row, and the share of rows on which both name the same class."""
    log_p_BC, log_q_BC = (x.double().log_softmax(-1) for x in (teacher_BC, student_BC))
    kl_B = (log_p_BC.exp() * (log_p_BC - log_q_BC)).sum(-1)
    same_B = teacher_BC.argmax(-1) == student_BC.argmax(-1)
    return {"kl_mean": float(kl_B.mean()), "top1_agreement": float(same_B.double().mean())}


def _speed(
    teacher: Classifier, student: Classifier, rows: Sequence[LabelledRow], recipe: ClassifierRecipe
) -> dict[str, Any]:
    """Milliseconds for one text, tokenized and classified, by both in turn; and teacher's over student's, paired.

    Each ratio is of one text, the two measured one after the other, so what slows the machine slows both.
    """
    texts = [row.text for row in random.Random(recipe.seed).choices(rows, k=recipe.evaluate.latency_requests)]
    times: dict[str, list[float]] = {"teacher": [], "student": []}
    models = {"teacher": teacher, "student": student}
    for text in texts[:_WARM_UP]:
        for model in models.values():
            model.logits([text])
    for number, text in enumerate(texts):
        for name in sorted(models, reverse=bool(number % 2)):
            begun = time.perf_counter()
            models[name].logits([text])
            times[name].append((time.perf_counter() - begun) * 1e3)
    ratios = [slow / fast for slow, fast in zip(times["teacher"], times["student"], strict=True)]
    summaries = {f"{name}_ms": _summary(values, recipe.seed) for name, values in times.items()}
    return summaries | {"speedup": _summary(ratios, recipe.seed), "threads": recipe.evaluate.threads}


def _summary(values: Sequence[float], seed: int) -> dict[str, float]:
    interval: Interval = bootstrap_median(values, seed)
    return {"median": quantile(values, 0.5), "low": interval.low, "high": interval.high}


def judge_classifier(recipe: ClassifierRecipe, evaluated: Path, out: Path) -> None:
    """Write `verdict.json`: every gate the recipe asks for, what they come to, and what is told beside them."""
    metrics = read_json_object(evaluated / "metrics.json")
    results = list(_gates(recipe, evaluated, metrics))
    notes = []
    if recipe.train.control == "sft" and not recipe.gates.beats_control:
        detail = better_gate(_right(evaluated, "student"), _right(evaluated, "control"), recipe.gates.alpha).detail
        notes.append(f"distilled over control (no gate): {detail}")
    verdict = {"verdict": overall(results), "gates": [asdict(r) for r in results], "notes": notes}
    write_json(out / "verdict.json", verdict)


def _gates(recipe: ClassifierRecipe, evaluated: Path, metrics: dict[str, Any]) -> Iterator[GateResult]:
    gates, alpha, models = recipe.gates, recipe.gates.alpha, metrics["models"]
    student = _right(evaluated, "student")
    if gates.exact is not None:
        yield floor_gate(sum(student), len(student), gates.exact, alpha, name="accuracy")
    if gates.retention is not None:
        teacher = _right(evaluated, "teacher")
        yield retention_gate(student, teacher, gates.retention, alpha, name="retention of teacher")
    if gates.beats_control:
        yield better_gate(student, _right(evaluated, "control"), alpha, name="distilled over control")
    if gates.parameters is not None:
        share = models["student"]["params"] / models["teacher"]["params"]
        yield limit_gate("parameters", share, gates.parameters, unit="ratio")
    if gates.speedup is not None:
        s = metrics["speed"]["speedup"]
        yield limit_gate("speed-up", s["median"], gates.speedup, s["low"], s["high"], "x", "min")


def _right(evaluated: Path, model: str) -> list[bool]:
    """Whether each test row was classified right, in order."""
    return [row["label"] == row["predicted"] for _, row in read_json_lines(evaluated / f"answers-{model}.jsonl")]
