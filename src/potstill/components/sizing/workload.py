"""The rows of a recipe: how many there are, how long they are, and which tokens they use."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.chat.reasoning import as_chosen
from potstill.components.chat.trimming import kept_ids
from potstill.core.errors import DataError
from potstill.core.recipe import Recipe
from potstill.core.records import Row, read_rows

__all__ = ["KeptTokens", "Split", "Splits", "Workload", "kept_tokens", "read_splits"]

Split = Literal["prompts", "validation", "test", "finetune", "labelled", "unanswered"]
Splits = Mapping[Split, Sequence[Row]]
_SAMPLE = 64
"""Rows of a file whose tokens are counted."""
_MAX_ROWS = 5000
"""Rows of a file that are read for the tokens they use, which takes about a second."""


def read_splits(recipe: Recipe) -> dict[Split, list[Row]]:
    """Rows by split, for those splits that the recipe has, as the stages read them.

    Raises:
        DataError: a file is absent or broken, a tool is not valid, or a row of `finetune` or `labelled` has no
            assistant turn.
    """
    data, tune, own = recipe.data, recipe.teacher.finetune, recipe.generate.samples == 0
    files: dict[Literal["prompts", "validation"], Path | None]
    files = {"prompts": data.prompts, "validation": data.validation}
    splits: dict[Split, list[Row]] = {
        name: read_rows(file, tools=data.tools, limit=data.limit.get(name), need_completion=own)
        for name, file in files.items()
        if file
    }
    splits["test"] = read_rows(data.test, tools=data.tools, limit=data.limit.get("test"))
    if tune:
        splits["finetune"] = read_rows(tune.rows, tools=data.tools, need_completion=True)
    if data.labelled:
        splits["labelled"] = read_rows(data.labelled, tools=data.tools, need_completion=True)
    if data.unanswered:
        splits["unanswered"] = read_rows(data.unanswered, tools=data.tools, limit=data.limit.get("unanswered"))
    return {name: as_chosen(rows, recipe.chat.reasoning) for name, rows in splits.items()}


@dataclass(frozen=True)
class Workload:
    """Rows that the teacher answers and the student learns from, and the mean number of tokens per row.

    rows              rows that the student learns from: several samples of a prompt are several rows
    answer_length     where the length of an answer was taken from, in words
    validation_rows   rows that the teacher answers for the validation curve
    test_rows         rows that the teacher answers to be compared with the student
    finetune_tokens   tokens of all rows on which the teacher itself is trained
    own_answers       whether the rows have their answers, so that the teacher answers test rows only
    right_answers     whether there are rows with right answers, from which the rung `labels` of `worth` learns
    """

    rows: int
    prompt: float
    answer: float
    epochs: float
    answer_length: str = ""
    validation_rows: int = 0
    test_rows: int = 0
    finetune_tokens: float = 0.0
    own_answers: bool = False
    right_answers: bool = False
    splits: Splits = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, chat: ChatFormat) -> Workload:
        """The workload of a recipe, counted on a sample of its prompts.

        Answers are as long as those in the test file where it has some, or else half of `generate.max_new_tokens`.

        Args:
            recipe: the recipe.
            chat: tokenizer and template of the teacher; of the student where the teacher is an endpoint.

        Raises:
            DataError: a file is absent or broken, or the chat template refuses a row.
        """
        splits, tuned, own = read_splits(recipe), 0.0, recipe.generate.samples == 0
        answered = [row for row in _sample(splits["prompts" if own else "test"]) if row.completion]
        if answered:
            lengths = [_example(row, chat).n_supervised for row in answered]
            answer, source = statistics.mean(lengths), "as in the prompts file" if own else "as in the test file"
        else:
            answer, source = recipe.generate.max_new_tokens / 2, "half of generate.max_new_tokens"
        prompt = statistics.mean(len(_prompt_ids(row, chat)) for row in _sample(splits["prompts"]))
        if rows := splits.get("finetune"):
            tuned = len(rows) * statistics.mean(len(_example(row, chat).ids) for row in _sample(rows))
        return cls(
            rows=len(splits["prompts"]) * max(1, recipe.generate.samples),
            prompt=prompt,
            answer=answer,
            epochs=recipe.train.epochs,
            answer_length=source,
            validation_rows=len(splits.get("validation", ())),
            test_rows=len(splits["test"]),
            finetune_tokens=tuned,
            own_answers=own,
            right_answers=any(row.completion for row in splits.get("labelled", splits["prompts"])),
            splits=splits,
        )

    @property
    def tokens(self) -> float:
        """Tokens of all prompts and answers together."""
        return self.rows * (self.prompt + self.answer)

    @property
    def answered_rows(self) -> int:
        """Rows that the teacher answers, for which an endpoint is paid."""
        return self.test_rows + (0 if self.own_answers else self.rows + self.validation_rows)


@contextmanager
def _naming(row: Row) -> Iterator[None]:
    """Turn a chat template's ValueError about a row into a DataError that names the row."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{row.where}: {error}. Look at chat.template, or fix the row.") from None


def _example(row: Row, chat: ChatFormat) -> Example:
    with _naming(row):
        return chat.example(row)


def _prompt_ids(row: Row, chat: ChatFormat) -> list[int]:
    with _naming(row):
        return chat.prompt_ids(row)


def _row_ids(row: Row, chat: ChatFormat) -> list[int]:
    """Ids of prompt and answer up to the end of the turn, in half the time of `ChatFormat.example`."""
    assert row.completion is not None
    with _naming(row):
        ids = chat.encode(chat.render((*row.messages, row.completion), row.tools))
    return ids[: max((place + 1 for place, index in enumerate(ids) if index in chat.stop_ids), default=len(ids))]


def _sample(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[:: max(1, len(rows) // _SAMPLE)]


@dataclass(frozen=True)
class KeptTokens:
    """Size of a vocabulary that is trimmed to the workload, counted on `counted` of its `rows` rows."""

    tokens: int
    counted: int
    rows: int

    @property
    def note(self) -> str | None:
        """A sentence where it was counted on a sample."""
        if self.counted == self.rows:
            return None
        return (
            f"student.vocabulary: about {self.tokens:,} tokens are kept, counted on {self.counted:,} of {self.rows:,} "
            "rows; the others will add some."
        )


def kept_tokens(recipe: Recipe, chat: ChatFormat) -> KeptTokens:
    """Number of tokens that trimming (`chat.trimming`) keeps of the rows that will be trained on.

    These are prompts and validation rows with their own answers, where the teacher will give similar ones; for rows
    without an answer, the test file's answers stand in.

    Args:
        recipe: the recipe.
        chat: tokenizer and template of the student.

    Raises:
        RecipeError: the tokenizer is of a kind that cannot be trimmed.
        DataError: a file is absent or broken, or the chat template refuses a row.
    """
    splits = read_splits(recipe)
    trained: list[Sequence[Row]] = [splits["prompts"], splits.get("validation", []), splits.get("unanswered", [])]
    used = {chat.eos_id, *chat.stop_ids}
    counted = [row for rows in trained for row in _spread(rows)]
    for row in counted:
        used.update(_row_ids(row, chat) if row.completion else _prompt_ids(row, chat))
    if not all(row.completion for row in counted):
        for row in _spread(splits["test"]):
            if row.completion:
                example = _example(row, chat)
                used.update(example.ids[example.n_prompt :])
    source = f"the tokenizer of {recipe.student.model or recipe.teacher.model}"
    kept = kept_ids(json.loads(chat.tokenizer.to_str()), used, source)
    return KeptTokens(len(kept), len(counted), sum(map(len, trained)))


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    """All rows, or evenly spaced ones where there are very many."""
    return rows[:: -(-len(rows) // _MAX_ROWS) or 1]
