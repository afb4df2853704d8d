"""The same rows in the tokens of two tokenizers, for a student whose teacher splits text into other tokens.

Each model reads a row in its own template and its own tokens, and their predictions of the answer's bytes are compared
(`potstill.components.losses.alignment`). Prompts may differ, as templates do; answers must be the same text.
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

__all__ = ["AlignedBatch", "Alignments", "align_rows"]


@dataclass(frozen=True)
class AlignedBatch:
    """A batch in the teacher's tokens.

    batch   the same rows, packed for the teacher
    order   (T,) for each teacher token of the spans, its place among the supervised tokens of `batch`: each side packs
            its own longest row first
    spans   the spans of all answers
    """

    batch: Batch
    order: Tensor
    spans: Spans

    def to(self, device: torch.device) -> AlignedBatch:
        """The batch on another device."""
        return replace(self, batch=self.batch.to(device), order=self.order.to(device))


@dataclass(frozen=True)
class Alignments:
    """For each of the student's rows, the teacher's row and the spans of the answer."""

    vocab: VocabMap
    rows: Mapping[Example, tuple[Example, Spans]]

    def teacher_rows(self, examples: Sequence[Example]) -> list[Example]:
        """The same rows in the teacher's tokens, in this order."""
        return [self.rows[example][0] for example in examples]

    def batch(self, examples: Sequence[Example]) -> AlignedBatch:
        """The teacher's side of a batch in which the student's rows have this order."""
        theirs = self.teacher_rows(examples)
        packed: list[int] = sorted(range(len(theirs)), key=lambda i: -len(theirs[i].ids))
        counts = [theirs[i].n_supervised for i in packed]
        places = dict(zip(packed, torch.arange(sum(counts)).split(counts), strict=True))
        order = torch.cat([places[i] for i in range(len(theirs))])
        return AlignedBatch(pack(theirs, 0), order, Spans.cat([self.rows[example][1] for example in examples]))


def align_rows(
    rows: Sequence[Row], student: Sequence[Example], teacher: Sequence[Example], chats: tuple[ChatFormat, ChatFormat]
) -> Alignments:
    """Align the answers of rows that both sides have tokenized.

    Args:
        rows: the rows.
        student: each row in the student's tokens.
        teacher: each row in the teacher's tokens.
        chats: the student's chat format, and the teacher's.

    Raises:
        RecipeError: the bytes of a tokenizer's tokens are not known.
        DataError: the two templates write an answer differently.
    """
    tokens = []
    for chat, examples in zip(chats, (student, teacher), strict=True):
        try:
            tokens.append(token_bytes(json.loads(chat.tokenizer.to_str()), _end_role(examples)))
        except ValueError as error:
            raise RecipeError(
                f"student.model: teacher and student have different tokenizers, and {error}. "
                "Choose a student of the teacher's family, or set train.objective: sft."
            ) from None
    vocab = VocabMap.of(*tokens)
    found: dict[Example, tuple[Example, Spans]] = {}
    for row, ours, theirs in zip(rows, student, teacher, strict=True):
        try:
            spans = align(ours.ids[ours.n_prompt :], theirs.ids[theirs.n_prompt :], vocab)
        except ValueError as error:
            raise DataError(
                f"{row.where or f'row {row.row_id}'}: teacher and student do not read the same answer: {error} "
                "Give both the same template: set chat.template to a Jinja file."
            ) from None
        found[ours] = theirs, spans
    return Alignments(vocab, found)


def _end_role(examples: Iterable[Example]) -> dict[str, int]:
    """The token that ends answers, which means the same to both sides whatever its text is."""
    ends = {example.ids[-1] for example in examples if example.eos_supervised}
    return {"end of answer": ends.pop()} if len(ends) == 1 else {}
