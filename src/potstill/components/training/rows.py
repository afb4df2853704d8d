"""Rows as the training stages receive them, and rows as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.chat.reasoning import as_chosen
from potstill.components.models.handover import optional_file
from potstill.core.artifacts.generated import TOOLS, read_generated, rows_file
from potstill.core.errors import DataError
from potstill.core.hashing import HashedPath
from potstill.core.recipe import LabelledData, Recipe
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import LabelledRow, Row, read_labelled, read_rows
from potstill.core.steps import Done

__all__ = ["GeneratedRows", "LabelledRows", "UnansweredRows", "training_examples"]


@dataclass(frozen=True)
class GeneratedRows:
    """Files of the generate step: the answered rows of each split, and the tools that rows share."""

    train: HashedPath
    validation: HashedPath | None
    tools: HashedPath

    @classmethod
    def of(cls, done: Done) -> GeneratedRows:
        """The files of the finished step; the stage that asks must declare that it reads `generate`."""
        return cls(
            done.path("generate", rows_file("train")),
            done.optional_path("generate", rows_file("validation")),
            done.path("generate", TOOLS),
        )

    def read(self) -> tuple[list[Row], list[Row]]:
        """Rows to train on, and rows for validation.

        Raises:
            DataError: a file is broken.
        """
        train = read_generated(self.train.path, self.tools.path)
        return train, read_generated(self.validation.path, self.tools.path) if self.validation else []


@dataclass(frozen=True)
class UnansweredRows:
    """Rows that the student answers itself while it learns: the file, the rows to read of it, and their tools."""

    file: HashedPath
    limit: int | None
    tools: HashedPath | None
    reasoning: Reasoning

    @classmethod
    def of(cls, recipe: Recipe) -> UnansweredRows | None:
        """The rows of a recipe; None if it has none."""
        data = recipe.data
        if data.unanswered is None:
            return None
        return cls(
            HashedPath.of_file(data.unanswered),
            data.limit.get("unanswered"),
            optional_file(data.tools),
            recipe.chat.reasoning,
        )

    def prompts(self, chat: ChatFormat, context: int) -> list[Example]:
        """The prompts in token ids, without an answer.

        Raises:
            DataError: the file is broken, or a prompt leaves no room for an answer.
        """
        tools = self.tools.path if self.tools else None
        rows = as_chosen(read_rows(self.file.path, tools=tools, limit=self.limit), self.reasoning)
        examples = []
        for row in rows:
            ids = chat.prompt_ids(row)
            if len(ids) >= context:
                raise DataError(
                    f"{row.where}: the prompt has {len(ids)} tokens, which leave no room for an answer in chat.context "
                    f"({context}). Raise chat.context, or remove the row."
                )
            examples.append(Example(tuple(ids), len(ids), eos_supervised=False))
        return examples


@dataclass(frozen=True)
class LabelledRows:
    """Labelled rows as the stages receive them.

    train, validation   JSONL files
    context             maximum length of a text, in tokens; a longer text is cut off
    """

    train: HashedPath
    validation: HashedPath | None
    context: int

    @classmethod
    def of(cls, data: LabelledData) -> LabelledRows:
        """The rows of a recipe."""
        return cls(HashedPath.of_file(data.train), optional_file(data.validation), data.context)

    def read_train(self) -> list[LabelledRow]:
        """Rows to train on."""
        return read_labelled(self.train.path)


def training_examples(
    rows: Sequence[Row], chat: ChatFormat, context: int, *, skip_longer: bool = False
) -> list[Example]:
    """Token ids of rows, without those that are longer than the context if `skip_longer` is set.

    Raises:
        DataError: a row cannot be trained on: it has no supervised token, no end token, or too many tokens.
    """
    examples = []
    for row in rows:
        where = row.name
        try:
            example = chat.example(row)
        except ValueError as error:
            raise DataError(f"{where}: {error}.") from None
        if example.n_supervised == 0:
            raise DataError(f"{where}: the rendered row has no supervised token. Look at the chat template.")
        if not (example.eos_supervised or row.unfinished):
            raise DataError(
                f"{where}: the answer in the rendered row has no end-of-turn token, so a student would never learn to "
                "stop. Look at the chat template."
            )
        if len(example.ids) > context:
            if skip_longer:
                continue
            raise DataError(
                f"{where}: the row has {len(example.ids)} tokens, more than chat.context ({context}). "
                "Raise chat.context, or remove the row."
            )
        examples.append(example)
    return examples
