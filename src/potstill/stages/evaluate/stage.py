"""Evaluate: measure the file that ships, and the checkpoint, the control and the teacher that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.components.chat.format import ChatSettings
from potstill.components.models.handover import base_model, teacher_weights
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.spending import Billing
from potstill.components.sizing.prices import billing
from potstill.core.artifacts.exported import Exported
from potstill.core.artifacts.metrics import Metrics
from potstill.core.artifacts.training import Trained, TrainedRungs
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ApiTeacher, Evaluate, LocalTeacher, Recipe, Rung, RungName
from potstill.core.steps import Done, Stage
from potstill.stages.evaluate.rows import RowFiles

__all__ = ["STAGE", "EvaluateInputs"]


@dataclass(frozen=True)
class EvaluateInputs:
    """What the measurements depend on.

    tool_format  syntax of tool calls in the answers
    weights      the teacher's weights; None for an endpoint
    base         the model that the student starts from, where it starts from a checkpoint
    start        the student before training; None where its weights were random
    student      the checkpoint of the file that ships
    student_rung rung of the worth ladder that the student is
    trained_rung rung that the student of `train.objective` is; another one where `worth.ship` is set
    shown_rungs  rungs that the recipe asks for
    seeds        number of training seeds
    rungs        models that the worth stage trained, by name
    trainings    what the trainings of the student and its control did
    rung_trainings  likewise, of the other rungs; None without any
    kept         old ids of the tokens of a trimmed vocabulary; None for a full one
    quantization format of the shipped file
    batch_size   rows that a local model decodes together
    confidence   level of every interval
    billing      what an endpoint charges, and what may be spent
    """

    rows: RowFiles
    chat: ChatSettings
    tool_format: str
    teacher: LocalTeacher | ApiTeacher
    weights: HashedPath | None
    base: HashedPath | None
    start: HashedPath | None
    student: HashedPath
    control: HashedPath | None
    student_rung: RungName
    trained_rung: RungName
    shown_rungs: tuple[Rung, ...]
    seeds: int
    rungs: dict[str, HashedPath]
    trainings: HashedPath
    rung_trainings: HashedPath | None
    kept: HashedPath | None
    gguf: HashedPath
    quantization: str
    sampling: Sampling
    batch_size: int
    settings: Evaluate
    confidence: float
    billing: Billing


def _inputs(recipe: Recipe, done: Done) -> EvaluateInputs:
    answers, exported = recipe.generate, done.read("export", Exported)
    models = done.read("worth", TrainedRungs).models if "worth" in done else {}
    rungs = {name: done.path("worth", name) for name in models} | {recipe.student_rung: done.path("train", "student")}
    shipped = rungs.pop(recipe.shipped_rung, None) or done.path("train", "control")
    return EvaluateInputs(
        rows=RowFiles.of(recipe),
        chat=ChatSettings.of(recipe.chat),
        tool_format=recipe.chat.tool_format,
        teacher=recipe.lead_teacher,
        weights=teacher_weights(recipe, done),
        base=base_model(recipe),
        start=done.optional_path("train", "start"),
        student=shipped,
        control=None if recipe.shipped_rung == "text" else done.optional_path("train", "control"),
        student_rung=recipe.shipped_rung,
        trained_rung=recipe.student_rung,
        shown_rungs=recipe.worth.rungs,
        seeds=recipe.worth.seeds,
        rungs=rungs,
        trainings=done.path("train", Trained.FILE),
        rung_trainings=done.optional_path("worth", TrainedRungs.FILE),
        kept=done.optional_path("train", "kept.json"),
        gguf=done.path("export", exported.file),
        quantization=exported.quantization,
        sampling=Sampling(answers.max_new_tokens, answers.temperature, answers.top_p, recipe.seed),
        batch_size=answers.batch_size,
        settings=recipe.evaluate,
        confidence=recipe.gates.confidence,
        billing=billing(recipe, recipe.lead_teacher),
    )


def _run(inputs: EvaluateInputs, out: Path) -> None:
    from potstill.stages.evaluate.measure import measure

    measure(inputs, out).write(out)


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Metrics.read(folder).findings()


STAGE = Stage(
    name="evaluate",
    reads=("finetune", "train", "worth", "export"),
    inputs=_inputs,
    run=_run,
    version=13,
    confirm=_confirm,
    paid=("answers-*.jsonl",),
)
