"""The recipe's section on data: `Data` for a language model, `LabelledData` for a classifier."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from potstill.core.recipe.fields import ELSEWHERE, Count, LocalPath, Section

__all__ = ["Data", "LabelledData"]


def _limit_of_prompts(value: Any) -> Any:
    return {"prompts": value} if isinstance(value, int) else value


class Data(Section):
    """The workload: prompts that the teacher answers, and test rows with right answers that no model trains on."""

    prompts: LocalPath
    """Path of the JSONL rows that the teacher answers and the student learns from; required."""
    validation: LocalPath | None = None
    """Path of JSONL rows on which training is measured and its best weights are chosen. The teacher answers them too;
    default: none, and the last weights are kept."""
    test: LocalPath
    """Path of the JSONL rows on which the student is judged; required."""
    labelled: LocalPath | None = None
    """Path of JSONL rows with right answers, for the rung `labels` of `worth`: what the same student learns without a
    teacher; default: the prompts that have an answer of their own."""
    unanswered: LocalPath | None = None
    """Path of JSONL rows whose prompts the teacher does not answer: with `train.objective.on_policy`, the student
    answers these in place of the prompts above, and the teacher scores its answers; default: none."""
    tools: LocalPath | None = None
    """Path of a JSON file with the tools of every row that names none of its own, in OpenAI's format; default: none."""
    curriculum: LocalPath | None = None
    """Path of a YAML file that says which prompts the teacher writes in addition, and how many rows of each kind are
    learnt from; default: none."""
    limit: Annotated[
        dict[Literal["prompts", "validation", "test", "unanswered"], Count],
        BeforeValidator(_limit_of_prompts),
        ELSEWHERE,
    ] = Field(default_factory=dict)
    """Number of rows to use from the top of a file, for example {prompts: 1500, validation: 200, test: 300}, where
    a bare number limits the prompts; default: all rows."""


class LabelledData(Section):
    """Rows of the form `{"text": "...", "label": "..."}`. The classes are the labels of `train`."""

    train: LocalPath
    """Path of the JSONL rows that teacher, student and control learn from; required."""
    validation: LocalPath | None = None
    """Path of JSONL rows on which training is measured and its best weights are chosen; default: none, and the last
    weights are kept."""
    test: LocalPath
    """Path of the JSONL rows on which the student is judged; required."""
    out_of_scope: Annotated[str | None, ELSEWHERE] = None
    """Label of the texts that belong to none of the other classes, whose rows are also scored apart; default: none."""
    context: Annotated[Count, ELSEWHERE] = 128
    """Maximum length of a text, beyond which it is cut, in tokens; default: 128."""
