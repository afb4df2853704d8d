"""The same rows in the tokens of two tokenizers: what a student learns from a teacher that cuts text otherwise.

Each model reads a row in its own template and its own tokens, and what it says of the answer's bytes is compared
(`potstill.components.losses.alignment`). Prompts may differ as templates do; answers have to be the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.losses.vocabulary import Spans, VocabMap, align, token_bytes
from potstill.components.training.batches import Batch, pack
from potstill.core.errors import DataError, RecipeError
from potstill.core.records import Row

__all__ = ["Reading", "Readings", "read_twice"]


@dataclass(frozen=True)
class Reading:
    """A batch as the teacher reads it: its own batch of the same rows, and the spans of all answers.

    `order` (T,) has, for each teacher token of the spans, its place among the batch's supervised ones: each side lays
    the longest of its rows first.
    """

    batch: Batch
    order: Tensor
    spans: Spans

    def to(self, device: torch.device) -> Reading:
        return replace(self, batch=self.batch.to(device), order=self.order.to(device))


@dataclass(frozen=True)
class Readings:
    """The teacher's row and the spans of the answer, for each of the student's rows."""

    vocab: VocabMap
    rows: Mapping[Example, tuple[Example, Spans]]

    def teachers(self, examples: Sequence[Example]) -> list[Example]:
        """The rows as the teacher reads them, in this order."""
        return [self.rows[example][0] for example in examples]

    def read(self, examples: Sequence[Example]) -> Reading:
        """The reading of a batch whose rows lie in this order."""
        theirs = self.teachers(examples)
        laid: list[int] = sorted(range(len(theirs)), key=lambda i: -len(theirs[i].ids))
        counts = [theirs[i].n_supervised for i in laid]
        places = dict(zip(laid, torch.arange(sum(counts)).split(counts), strict=True))
        order = torch.cat([places[i] for i in range(len(theirs))])
        return Reading(pack(theirs, 0), order, Spans.cat([self.rows[example][1] for example in examples]))


def read_twice(
    rows: Sequence[Row], student: Sequence[Example], teacher: Sequence[Example], chats: tuple[ChatFormat, ChatFormat]
) -> Readings:
    """Align the answers of rows that both sides have tokenized.

    Args:
        rows: the rows.
        student: each in the student's tokens.
        teacher: each in the teacher's.
        chats: the student's, and the teacher's.

    Raises:
        RecipeError: the bytes of a tokenizer's tokens are not known.
        DataError: an answer that the two templates do not write alike.
    """
    tokens = []
    for chat, examples in zip(chats, (student, teacher), strict=True):
        try:
            tokens.append(token_bytes(json.loads(chat.tokenizer.to_str()), _end_role(examples)))
        except ValueError as error:
            raise RecipeError(
                f"student.model: teacher and student have different tokenizers, and {error}. Choose a student of the "
                "teacher's family, or set train.objective: sft."
            ) from None
    vocab = VocabMap.of(*tokens)
    found: dict[Example, tuple[Example, Spans]] = {}
    for row, own, taught in zip(rows, student, teacher, strict=True):
        try:
            spans = align(own.ids[own.n_prompt :], taught.ids[taught.n_prompt :], vocab)
        except ValueError as error:
            raise DataError(
                f"{row.where or f'row {row.row_id}'}: teacher and student do not read the same answer: {error} Give "
                "both one template: set chat.template to a Jinja file."
            ) from None
        found[own] = taught, spans
    return Readings(vocab, found)


def _end_role(examples: Iterable[Example]) -> dict[str, int]:
    """The token that ends answers means the same to both, whatever its text."""
    ends = {example.ids[-1] for example in examples if example.eos_supervised}
    return {"end of answer": ends.pop()} if len(ends) == 1 else {}
