"""The worth ladder of a language model: right answers or, where no row has one, nats per byte of people's text.

Texts of people that are longer than the context are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from potstill.components.chat.written import written_rows
from potstill.components.runtimes.hf import HFRuntime
from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.training import Trained, TrainedRungs, TrainSummary
from potstill.core.artifacts.worth import RungName, Worth
from potstill.core.format import format_percent
from potstill.core.progress import progress_bar
from potstill.core.records import Row
from potstill.stages.evaluate.models import local_runtime
from potstill.stages.evaluate.stage import EvaluateInputs
from potstill.stages.evaluate.worth import Ladder, RungScores

__all__ = ["advice", "measure_worth", "nats"]

Scores = Mapping[str, Sequence[float]]

_CERTAIN = 0.05
"""Entropy below which a teacher counts as certain, in nats per token; at 0.014, its distributions added nothing to its
text (docs/decisions.md)."""
_LATE = 0.2
_STILL_FALLING = 0.02


def measure_worth(
    inputs: EvaluateInputs,
    rows: Sequence[Row],
    teacher: Sequence[JudgedAnswer],
    answers: Mapping[str, Sequence[JudgedAnswer]],
    entropy: float | None,
) -> Worth | None:
    """The ladder; None where the rows have neither right answers nor text of people, or there is one rung only.

    Args:
        inputs: the stage's.
        rows: the test rows.
        teacher: the teacher's answers to them.
        answers: the answers of the student, of what it was before training, and of the other rungs, by rung.
        entropy: the teacher's mean entropy per token of its answers, in nats; None where it is not known.
    """
    shown = {*inputs.shown_rungs, inputs.student_rung, inputs.trained_rung}
    if len({name.partition("-")[0] for name in answers} & shown) < 2:
        return None
    found = _measured(inputs, rows, teacher, answers)
    student = Trained.read(inputs.trainings.path.parent).student
    return found.model_copy(update={"advice": advice(entropy, student)}) if found else None


def advice(entropy: float | None, student: TrainSummary) -> tuple[str, ...]:
    """What would help the student: from the entropy in nats per token, and from the end of the student's curve."""
    said = []
    if entropy is not None and entropy < _CERTAIN:
        said.append(
            f"The teacher is nearly certain of its answers ({entropy:.2g} nats per token), so its distributions say "
            "little more than its text. More prompts help more than another objective."
        )
    points = student.validation
    before = [point.loss for point in points if point.step <= (1 - _LATE) * student.steps]
    fall = 1 - min(point.loss for point in points) / min(before) if before and min(before) > 0 else 0.0
    if fall > _STILL_FALLING:
        said.append(
            f"The student's loss on validation rows still fell by {format_percent(fall)} in the last fifth of its "
            "steps. More epochs help."
        )
    return tuple(said)


def _measured(
    inputs: EvaluateInputs,
    rows: Sequence[Row],
    teacher: Sequence[JudgedAnswer],
    answers: Mapping[str, Sequence[JudgedAnswer]],
) -> Worth | None:
    judged = [index for index, answer in enumerate(teacher) if answer.exact is not None]
    groups = [row.group for row in rows]
    if judged:
        ladder = Ladder("exact", [1] * len(judged), [groups[i] for i in judged], inputs.confidence)
        scores = {name: [float(found[i].exact or False) for i in judged] for name, found in answers.items()}
        return ladder.worth(_rungs(inputs, scores), sum(bool(teacher[i].exact) for i in judged) / len(judged))
    written = written_rows(rows, inputs.chat.load(inputs.student.path), inputs.chat.context)
    if not written:
        return None
    folders = {"start": inputs.start, "text": inputs.control, inputs.student_rung: inputs.student} | inputs.rungs
    sizes = [len((row.completion.content or "").encode()) for row in written if row.completion]
    ladder = Ladder("nats_per_byte", sizes, [row.group for row in written], inputs.confidence)
    found = {name: nats(local_runtime(inputs, at.path), written, name) for name, at in folders.items() if at}
    return ladder.worth(_rungs(inputs, found), _teacher_nats(inputs, written, sum(sizes)))


def nats(runtime: HFRuntime, rows: Sequence[Row], model: str) -> list[float]:
    """-ln p of each row's own answer, its end included."""
    found = []
    with progress_bar(f"score test rows: {model}", len(rows)) as ticker:
        for row in rows:
            example = runtime.chat.example(row)
            table = runtime.log_probs(example.ids, example.n_prompt)
            answer = table.new_tensor(example.ids[example.n_prompt :]).long()
            found.append(-float(table.gather(1, answer[:, None]).sum()))
            ticker.advance()
    return found


def _teacher_nats(inputs: EvaluateInputs, rows: Sequence[Row], size: int) -> float | None:
    """The teacher's nats per byte; None for an endpoint."""
    if inputs.weights is None or inputs.teacher.kind != "local":
        return None
    runtime = local_runtime(inputs, inputs.weights.path, inputs.teacher.dtype, inputs.teacher.offload)
    return sum(nats(runtime, rows, "teacher")) / size


def _rungs(inputs: EvaluateInputs, scores: Scores) -> dict[RungName, RungScores]:
    """The scores of each rung that the recipe shows, in order, with those of all its training seeds."""
    own = Trained.read(inputs.trainings.path.parent)
    others = TrainedRungs.read(inputs.rung_trainings.path.parent).models if inputs.rung_trainings else {}
    trained: dict[str, TrainSummary | None] = {"text": own.control, inputs.trained_rung: own.student, **others}
    names: tuple[RungName, ...] = get_args(RungName)
    shown = (*inputs.shown_rungs, inputs.student_rung, inputs.trained_rung)
    found: dict[RungName, RungScores] = {}
    for rung in names:
        models = (rung, *(f"{rung}-{number}" for number in range(2, inputs.seeds + 1)))
        seeds = [scores[model] for model in models if model in scores]
        if seeds and rung in shown:
            found[rung] = RungScores.of(seeds, trained.get(rung))
    return found
