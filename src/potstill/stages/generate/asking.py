"""One teacher is asked for the answers to a split's prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from potstill.components.runtimes import Answer, Sampling
from potstill.core.artifacts.generated import GeneratedSplit
from potstill.core.progress import say
from potstill.core.records import Row
from potstill.stages.generate.filter import filter_answers, is_called, usual_model
from potstill.stages.generate.teachers import LoadedTeacher

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs

__all__ = ["Asked", "ask_teacher", "planned_requests"]


@dataclass(frozen=True)
class Asked:
    """What one teacher answers.

    fit        rows with answers that can be learnt from in form
    rejected   rows whose answers cannot, with the reason
    answers    all answers by row id
    """

    fit: list[Row]
    rejected: list[Row]
    answers: dict[str, list[Answer]]


def planned_requests(
    inputs: GenerateInputs, rows: Sequence[Row], split: GeneratedSplit
) -> list[tuple[list[Row], Sampling]]:
    """What a teacher is asked for a split, sample by sample: each distinct prompt once."""
    settings, distinct = inputs.settings, list({row.row_id: row for row in rows}.values())
    count = settings.samples if split == "train" else min(settings.samples, 1)
    # the seed makes another sample another request
    seeds = range(inputs.seed, inputs.seed + count)
    return [(distinct, Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, n)) for n in seeds]


def ask_teacher(inputs: GenerateInputs, teacher: LoadedTeacher, rows: Sequence[Row], split: GeneratedSplit) -> Asked:
    """The teacher's answers to each distinct prompt; none where the rows have their own."""
    answers = _answers(inputs, teacher, rows, split)
    usual, asked = usual_model(answers), teacher.identity.model
    if usual and not is_called(usual, asked):
        say(f"{teacher.identity.endpoint}: it is asked for the model {asked}, and says that {usual} answers.")
    fit, rejected = _filtered(inputs, teacher, rows, answers)
    _require_all(rows, answers, len(fit) + len(rejected))
    return Asked(fit, rejected, answers)


def _answers(
    inputs: GenerateInputs, teacher: LoadedTeacher, rows: Sequence[Row], split: GeneratedSplit
) -> dict[str, list[Answer]]:
    """Answers by row id. Where log-probabilities are asked for, the first answers are checked first."""
    planned = planned_requests(inputs, rows, split)
    found: dict[str, list[Answer]] = {row.row_id: [] for row in rows}
    repeated = f" ({len(rows) - len(found):,} repeated)" if len(rows) > len(found) else ""
    if inputs.logprobs and split == "train":
        from potstill.stages.generate.logprobs import FIRST_ROWS, check_first_answers

        asked, sampling = planned[0]
        first = asked[:FIRST_ROWS]
        given = teacher.runtime.answer(first, sampling, "first rows")
        answers = {row.row_id: [answer] for row, answer in zip(first, given, strict=True)}
        check_first_answers(teacher, _filtered(inputs, teacher, first, answers)[0], answers)
    for number, (asked, sampling) in enumerate(planned, 1):
        label = f"answer {split} rows{repeated}" + (f", sample {number} of {len(planned)}" if len(planned) > 1 else "")
        for row, answer in zip(asked, teacher.runtime.answer(asked, sampling, label), strict=True):
            found[row.row_id].append(answer)
    return found


def _filtered(
    inputs: GenerateInputs, teacher: LoadedTeacher, rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]]
) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and rejected rows."""
    return filter_answers(
        rows,
        answers,
        teacher,
        keep_truncated=inputs.settings.keep_truncated,
        context=inputs.chat.context,
        reasoning=inputs.chat.reasoning,
    )


def _require_all(rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], done: int) -> None:
    """Check that each answer is fit or rejected, and each repeated row is rejected once."""
    asked = [len(answers.get(row_id, ())) for row_id in dict.fromkeys(row.row_id for row in rows)]
    has_own = not any(asked)
    expected = len(rows) if has_own else sum(asked) + len(rows) - len(asked)
    if done != expected:
        raise AssertionError(f"{expected} answers came in, and {done} were kept or rejected")
