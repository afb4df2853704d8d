"""Evaluate: measure a distilled classifier, its teacher and its control: accuracy, fidelity, size and speed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.components.models.handover import classifier_teacher
from potstill.core.artifacts.answers import ClassifiedRow, answers_file, write_answers
from potstill.core.artifacts.metrics import (
    ClassifierFidelity,
    ClassifierMetrics,
    ClassifierModelMetrics,
    ClassifierModels,
    ClassifierPaired,
    ClassifierSpeed,
    LeakedRows,
    Median,
    PairedCounts,
    Rate,
)
from potstill.core.artifacts.training import Trained
from potstill.core.artifacts.worth import RungName, Worth
from potstill.core.errors import DataError
from potstill.core.hashing import HashedPath
from potstill.core.leakage import leaked_texts, unrepeated_texts
from potstill.core.recipe import ClassifierEvaluate, ClassifierRecipe
from potstill.core.records import LabelledRow, read_labelled
from potstill.core.steps import Done, Stage
from potstill.stages.evaluate.bag_of_words import bag_of_words
from potstill.stages.evaluate.calibration import Confidences, brier_difference, calibration
from potstill.stages.evaluate.worth import Ladder, RungScores

if TYPE_CHECKING:
    from torch import Tensor

    from potstill.components.runtimes.classifier import Classifier

__all__ = ["STAGE", "ClassifierEvaluateInputs", "scored_rows"]

_WARM_UP = 10


@dataclass(frozen=True)
class ClassifierEvaluateInputs:
    """What the measurements depend on; `train` and `validation` rows are read to find those test rows."""

    test: HashedPath
    train: HashedPath
    validation: HashedPath | None
    context: int
    out_of_scope: str | None
    teacher: HashedPath
    start: HashedPath
    student: HashedPath
    control: HashedPath | None
    trainings: HashedPath
    settings: ClassifierEvaluate
    seed: int
    confidence: float


def _inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierEvaluateInputs:
    data = recipe.data
    return ClassifierEvaluateInputs(
        test=HashedPath.of_file(data.test),
        train=HashedPath.of_file(data.train),
        validation=HashedPath.of_file(data.validation) if data.validation else None,
        context=data.context,
        out_of_scope=data.out_of_scope,
        teacher=classifier_teacher(recipe, done),
        start=done.path("train", "start"),
        student=done.path("train", "student"),
        control=done.optional_path("train", "control"),
        trainings=done.path("train", Trained.FILE),
        settings=recipe.evaluate,
        seed=recipe.seed,
        confidence=recipe.gates.confidence,
    )


def _run(inputs: ClassifierEvaluateInputs, out: Path) -> None:
    import torch

    from potstill.components.runtimes.classifier import Classifier

    rows, leaked = scored_rows(inputs.test, inputs.train, inputs.validation)
    folders = {"teacher": inputs.teacher, "start": inputs.start, "student": inputs.student, "control": inputs.control}
    models = {name: Classifier(model.path, inputs.context) for name, model in folders.items() if model}
    threads = torch.get_num_threads()
    torch.set_num_threads(inputs.settings.threads)
    try:
        logits = {name: model.classify([row.text for row in rows]) for name, model in models.items()}
        speed = _measure_speed(models["teacher"], models["student"], rows, inputs)
    finally:
        torch.set_num_threads(threads)
    metrics: dict[str, ClassifierModelMetrics] = {}
    right: dict[str, list[bool]] = {}
    confidences: dict[str, Confidences] = {}
    for name, model in models.items():
        labels = [model.labels[number] for number in logits[name].argmax(-1).tolist()]
        sure = logits[name].softmax(-1).amax(-1).clamp(max=1.0).tolist()
        answers = [
            ClassifiedRow(text=row.text, label=row.label, predicted=label, confidence=confidence)
            for row, label, confidence in zip(rows, labels, sure, strict=True)
        ]
        write_answers(out / answers_file(name), answers)
        right[name] = [answer.exact for answer in answers]
        confidences[name] = Confidences(sure, right[name], [None] * len(rows))
        fidelity = None if name == "teacher" else _fidelity(logits["teacher"], logits[name])
        metrics[name] = _model_metrics(model, folders[name], answers, fidelity, inputs)
    models_metrics = ClassifierModels(
        teacher=metrics["teacher"],
        start=metrics["start"],
        student=metrics["student"],
        control=metrics.get("control"),
    )
    ClassifierMetrics(
        confidence=inputs.confidence,
        models=models_metrics,
        paired=_paired(right, confidences, inputs.confidence),
        worth=_worth(inputs, rows, right),
        calibration=tuple(calibration(name, found, inputs.confidence) for name, found in confidences.items()),
        speed=speed,
        leaked=leaked,
    ).write(out)


STAGE = Stage(name="evaluate", reads=("finetune", "train"), inputs=_inputs, run=_run, version=8)


def scored_rows(test_file: HashedPath, *used_files: HashedPath | None) -> tuple[list[LabelledRow], LeakedRows]:
    """The rows to score, and those left out because they were also trained on or used for validation.

    Args:
        test_file: the test rows.
        used_files: the rows of training and validation.

    Raises:
        DataError: a file is broken, or every test row was used.
    """
    test = read_labelled(test_file.path)
    used = [row for file in used_files if file for row in read_labelled(file.path)]
    leaked = {row.text for row in leaked_texts(test, used)}
    left = [row for row in test if row.text not in leaked]
    if not left:
        raise DataError(
            f"{test_file.path}: every test row is also trained on or used for validation, so nothing can "
            "be scored. Use other test rows."
        )
    rows = unrepeated_texts(left)
    found = LeakedRows(
        rows=len(test) - len(left), of=len(test), row_ids=tuple(sorted(leaked)), repeated=len(left) - len(rows)
    )
    return rows, found


def _model_metrics(
    model: Classifier,
    folder: HashedPath | None,
    answers: Sequence[ClassifiedRow],
    fidelity: ClassifierFidelity | None,
    inputs: ClassifierEvaluateInputs,
) -> ClassifierModelMetrics:
    """Size, accuracy of all rows and, where the recipe distinguishes them, of rows in and out of scope."""
    out, level = inputs.out_of_scope, inputs.confidence
    exact = Rate.of([answer.exact for answer in answers], None, level)
    assert folder is not None and exact is not None  # there is at least one row
    scoped = out is not None
    return ClassifierModelMetrics(
        params=model.model.num_parameters(),
        bytes=(folder.path / "model.safetensors").stat().st_size,
        exact=exact,
        in_scope=Rate.of([a.exact for a in answers if a.label != out], None, level) if scoped else None,
        out_of_scope=Rate.of([a.exact for a in answers if a.label == out], None, level) if scoped else None,
        fidelity=fidelity,
    )


def _paired(right: dict[str, list[bool]], confidences: dict[str, Confidences], confidence: float) -> ClassifierPaired:
    """The student compared with the other models, from whether each row was classified right, and how surely."""
    teacher = PairedCounts.of(right["student"], right["teacher"], None, confidence)
    assert teacher is not None  # there is at least one row
    control = PairedCounts.of(right["student"], right["control"], None, confidence) if "control" in right else None
    brier = brier_difference(confidences["student"], confidences.get("control"), confidence)
    return ClassifierPaired(student_vs_teacher=teacher, student_vs_control=control, student_vs_control_brier=brier)


def _worth(inputs: ClassifierEvaluateInputs, rows: Sequence[LabelledRow], right: dict[str, list[bool]]) -> Worth:
    """The ladder, which begins with the simplest classifier."""
    guessed = bag_of_words(read_labelled(inputs.train.path), [row.text for row in rows])
    scores: dict[RungName, list[bool]] = {
        "baseline": [label == row.label for label, row in zip(guessed, rows, strict=True)],
        "start": right["start"],
        **({"labels": right["control"]} if "control" in right else {}),
        "distributions": right["student"],
    }
    trained = Trained.read(inputs.trainings.path.parent)
    summaries = {"labels": trained.control, "distributions": trained.student}
    rungs = {name: RungScores.of([list(map(float, found))], summaries.get(name)) for name, found in scores.items()}
    ladder = Ladder("exact", [1] * len(rows), [None] * len(rows), inputs.confidence)
    return ladder.worth(rungs, sum(right["teacher"]) / len(rows))


def _fidelity(teacher_BC: Tensor, student_BC: Tensor) -> ClassifierFidelity:
    log_p_BC, log_q_BC = (x.double().log_softmax(-1) for x in (teacher_BC, student_BC))
    kl_B = (log_p_BC.exp() * (log_p_BC - log_q_BC)).sum(-1)
    same_B = teacher_BC.argmax(-1) == student_BC.argmax(-1)
    return ClassifierFidelity(kl_mean=float(kl_B.mean()), top1_agreement=float(same_B.double().mean()))


def _measure_speed(
    teacher: Classifier, student: Classifier, rows: Sequence[LabelledRow], inputs: ClassifierEvaluateInputs
) -> ClassifierSpeed:
    """Time single texts, by teacher and student in turn.

    Each ratio compares two measurements of the same text, one right after the other, so that whatever slows the machine
    affects both.
    """
    texts = [row.text for row in random.Random(inputs.seed).choices(rows, k=inputs.settings.latency_requests)]
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
    return ClassifierSpeed(
        teacher_ms=Median.of(times["teacher"], inputs.confidence),
        student_ms=Median.of(times["student"], inputs.confidence),
        speedup=Median.of(ratios, inputs.confidence),
        threads=inputs.settings.threads,
    )
