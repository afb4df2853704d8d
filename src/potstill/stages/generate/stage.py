"""Generate: the teacher answers the prompts; answers are stored as they come, filtered, and kept with their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.components.chat.format import ChatSettings
from potstill.components.chat.losses import left_out_of_answer
from potstill.components.chat.reasoning import as_chosen, holds_thinking
from potstill.components.models.handover import base_model, optional_file, teacher_weights
from potstill.components.runtimes.spending import Billing
from potstill.components.sizing.prices import billing
from potstill.core.artifacts.generated import (
    REJECTED,
    TOOLS,
    Generated,
    GeneratedSplit,
    SplitCounts,
    logprobs_file,
    rows_file,
)
from potstill.core.errors import StepError
from potstill.core.files import write_json
from potstill.core.hashing import HashedPath
from potstill.core.recipe import ApiTeacher, Generate, LocalTeacher, Recipe, SeveralTeachers, split_revision
from potstill.core.records import Message, Row, read_rows, write_rows
from potstill.core.steps import Done, Stage
from potstill.core.tools import read_tools
from potstill.stages.generate.curriculum import coverage_findings, with_written_prompts, write_coverage
from potstill.stages.generate.filters import with_filters
from potstill.stages.generate.teachers import LoadedTeacher, lead_of, load_teachers
from potstill.stages.generate.teaching import Taught, announce, teach

__all__ = ["STAGE", "GenerateInputs", "make_inputs", "run"]


@dataclass(frozen=True)
class GenerateInputs:
    """What the answers depend on.

    teacher      the recipe's section
    name         the teacher's name in the provenance of its rows
    revision     its revision on the hub
    weights      folder of a local teacher; None for an endpoint
    reader       folder of the model that the student starts from, whose tokenizer it has; None: the teacher's
    chat         template and context
    prompts      rows to learn from
    validation   rows of the validation curve
    tools        tools of the rows that name none
    curriculum   what the accepted rows must cover; the teacher writes prompts until they do
    test         rows that no row learnt from may be like; None without the filter `decontamination`
    limit        number of prompts to use, from the top of the file
    validation_limit   the same of the validation rows
    settings     how the teacher answers
    logprobs     number of log-probabilities that an endpoint is asked for at each token
    seed         seed of the sampling
    billing      what an endpoint charges, and what may be spent
    member_billing   the same of each of several teachers
    """

    teacher: LocalTeacher | ApiTeacher | SeveralTeachers
    name: str
    revision: str | None
    weights: HashedPath | None
    reader: HashedPath | None
    chat: ChatSettings
    prompts: HashedPath
    validation: HashedPath | None
    tools: HashedPath | None
    curriculum: HashedPath | None
    test: HashedPath | None
    limit: int | None
    validation_limit: int | None
    settings: Generate
    logprobs: int | None
    seed: int
    billing: Billing
    member_billing: tuple[Billing, ...]


def make_inputs(recipe: Recipe, done: Done) -> GenerateInputs:
    """The inputs of a recipe."""
    teacher, data = recipe.teacher, recipe.data
    folder, (name, revision) = Path(teacher.model), split_revision(teacher.model)
    return GenerateInputs(
        teacher=teacher,
        name=folder.name if teacher.kind == "local" and folder.is_dir() else name,
        revision=revision if teacher.kind == "local" else None,
        weights=teacher_weights(recipe, done),
        reader=base_model(recipe),
        chat=ChatSettings.of(recipe.chat),
        prompts=HashedPath.of_file(data.prompts),
        validation=optional_file(data.validation),
        tools=optional_file(data.tools),
        curriculum=optional_file(data.curriculum),
        test=HashedPath.of_file(data.test) if "decontamination" in recipe.generate.filters else None,
        limit=data.limit.get("prompts"),
        validation_limit=data.limit.get("validation"),
        settings=recipe.generate,
        logprobs=recipe.requested_logprobs,
        seed=recipe.seed,
        billing=billing(recipe, recipe.lead_teacher),
        member_billing=tuple(billing(recipe, member) for member in recipe.member_teachers),
    )


def run(inputs: GenerateInputs, out: Path) -> None:
    """Answer the prompts; write the rows to learn from, the rejected rows, and a summary.

    Raises:
        TeacherError: the teacher does not answer.
        BudgetError: the budget is used up.
        UsageError: the budget has no room for the first requests, or an answer is missing offline.
        StepError: no answer can be learnt from, or an endpoint that is asked for log-probabilities gives none, or gives
            those of other tokens than the student's.
    """
    teachers, tools = load_teachers(inputs, out), read_tools(inputs.tools.path) if inputs.tools else ()
    sources: dict[GeneratedSplit, tuple[HashedPath | None, int | None]] = {
        "train": (inputs.prompts, inputs.limit),
        "validation": (inputs.validation, inputs.validation_limit),
    }
    prompts = {split: _prompts(inputs, source, limit) for split, (source, limit) in sources.items()}
    announce(inputs, teachers, [(rows, split) for split, rows in prompts.items()])
    if inputs.curriculum:
        prompts["train"] = with_written_prompts(inputs, teachers, prompts["train"])
    splits: dict[str, SplitCounts] = {}
    all_rejected: list[Row] = []
    for split, rows in prompts.items():
        taught = with_filters(inputs, teach(inputs, teachers, rows, split))
        write_rows(out / rows_file(split), taught.kept, tools)
        if split == "train" and inputs.curriculum:
            write_coverage(inputs.curriculum, taught.kept, rows, out)
        if inputs.logprobs:
            from potstill.stages.generate.logprobs import write_logprobs

            write_logprobs(out / logprobs_file(split), taught.kept, taught.answers)
        all_rejected += taught.rejected
        splits[split] = _counts(inputs, teachers, rows, taught)
    write_rows(out / REJECTED, all_rejected, tools)
    write_json(out / TOOLS, list(tools))  # once for all rows, whose tools would otherwise be most of the file
    _require_kept(splits["train"], out)
    Generated(teacher=lead_of(inputs, teachers).identity, reasoning=inputs.chat.reasoning, splits=splits).write(out)


def _prompts(inputs: GenerateInputs, source: HashedPath | None, limit: int | None) -> list[Row]:
    """The rows of a split, without their answers where the teacher gives them."""
    if source is None:
        return []
    own, tools = inputs.settings.samples == 0, inputs.tools.path if inputs.tools else None
    rows = read_rows(source.path, tools=tools, limit=limit, need_completion=own)
    if not own:
        rows = [row.model_copy(update={"completion": None}) for row in rows]
    return as_chosen(rows, inputs.chat.reasoning)


def _counts(
    inputs: GenerateInputs, teachers: Sequence[LoadedTeacher], rows: Sequence[Row], taught: Taught
) -> SplitCounts:
    """The counts of a split."""
    given = [answer for each in taught.answers.values() for answer in each]
    chat = teachers[0].student_chat
    return SplitCounts(
        prompts=len(rows),
        kept=len(taught.kept),
        rejected=Counter(row.provenance["rejected"] for row in taught.rejected),
        left_out=Counter(part for row in taught.kept for part in left_out_of_answer(row, chat)),
        thinking=sum(holds_thinking(Message(role="assistant", content=answer.text)) for answer in given),
        completion_tokens=sum(answer.completion_tokens for answer in given),
        own_answers=len(rows) if inputs.settings.samples == 0 else 0,
        verified=taught.verified,
        teachers=tuple(taught.teachers) if len(teachers) > 1 else (),
        compared=taught.compared,
        agreed=taught.agreed,
    )


def _require_kept(counts: SplitCounts, out: Path) -> None:
    if not counts.kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.rejected.items())
        raise StepError(
            f"{out}: none of the answers to {counts.prompts} prompts is fit to learn from ({reasons}); "
            f"they are in {REJECTED}. If they are cut off, raise generate.max_new_tokens, "
            "or set generate.keep_truncated to continue text. If checkers reject them, compare some of them with "
            "their rows, and choose others in generate.verify; no answer is asked for again."
        )


def _confirm(folder: Path, runs: Path) -> list[str]:
    return Generated.read(folder).findings() + coverage_findings(folder)


STAGE = Stage("generate", ("finetune",), make_inputs, run, version=10, confirm=_confirm)
