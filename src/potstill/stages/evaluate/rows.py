"""The test rows that are scored: those of the test file whose prompts were not used in training or validation."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.chat.reasoning import as_chosen
from potstill.core.artifacts.metrics import LeakedRows
from potstill.core.errors import DataError
from potstill.core.hashing import HashedPath
from potstill.core.leakage import leaked_rows, unrepeated_rows
from potstill.core.recipe import Recipe
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import Row, read_rows

__all__ = ["RowFiles", "read_test_rows"]


@dataclass(frozen=True)
class RowFiles:
    """The test file, and the files that were trained on or used for validation.

    test_limit      number of test rows to use; None: all; and likewise the other limits
    tools           tools of rows that name none of their own
    prompts         rows that the student learns from
    finetune_rows   rows that the teacher was fine-tuned on
    labelled        rows with right answers that a rung of the worth ladder learns from
    unanswered      rows that the student answers itself while it learns
    validation      rows that the best weights were chosen on
    reasoning       whether the thinking of earlier turns is kept
    """

    test: HashedPath
    test_limit: int | None
    tools: HashedPath | None
    prompts: HashedPath
    prompts_limit: int | None
    finetune_rows: HashedPath | None
    labelled: HashedPath | None = None
    unanswered: HashedPath | None = None
    unanswered_limit: int | None = None
    validation: HashedPath | None = None
    validation_limit: int | None = None
    reasoning: Reasoning = "learn"

    @classmethod
    def of(cls, recipe: Recipe) -> RowFiles:
        """The files of a recipe."""
        data, finetune = recipe.data, recipe.teacher.finetune
        return cls(
            test=HashedPath.of_file(data.test),
            test_limit=data.limit.get("test"),
            tools=HashedPath.of_file(data.tools) if data.tools else None,
            prompts=HashedPath.of_file(data.prompts),
            prompts_limit=data.limit.get("prompts"),
            finetune_rows=HashedPath.of_file(finetune.rows) if finetune else None,
            labelled=HashedPath.of_file(data.labelled) if data.labelled else None,
            unanswered=HashedPath.of_file(data.unanswered) if data.unanswered else None,
            unanswered_limit=data.limit.get("unanswered"),
            validation=HashedPath.of_file(data.validation) if data.validation else None,
            validation_limit=data.limit.get("validation"),
            reasoning=recipe.chat.reasoning,
        )


def read_test_rows(files: RowFiles) -> tuple[list[Row], LeakedRows]:
    """The rows to score, each once, and those left out because they were also trained on or used for validation.

    Raises:
        DataError: a file is broken, or every test row was also trained on or used for validation.
    """
    tools = files.tools.path if files.tools else None
    test = read_rows(files.test.path, tools=tools, limit=files.test_limit)
    used = read_rows(files.prompts.path, tools=tools, limit=files.prompts_limit)
    if files.finetune_rows:
        used += read_rows(files.finetune_rows.path, tools=tools)
    if files.labelled:
        used += read_rows(files.labelled.path, tools=tools)
    if files.unanswered:
        used += read_rows(files.unanswered.path, tools=tools, limit=files.unanswered_limit)
    if files.validation:
        used += read_rows(files.validation.path, tools=tools, limit=files.validation_limit)
    test, used = (as_chosen(rows, files.reasoning) for rows in (test, used))
    leaked = {row.where: row.row_id for row, _ in leaked_rows(test, used)}
    left = [row for row in test if row.where not in leaked]
    if not left:
        raise DataError(
            f"{files.test.path}: every test row is also trained on or used for validation, so nothing can "
            "be scored. Use other test rows."
        )
    rows = unrepeated_rows(left)
    ids = tuple(dict.fromkeys(leaked.values()))
    return rows, LeakedRows(rows=len(leaked), of=len(test), row_ids=ids, repeated=len(left) - len(rows))
