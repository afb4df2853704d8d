"""How many tokens of each kind a global batch has, and the weight of each kind's sum in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from potstill.components.chat.format import Example
from potstill.components.training.batches import SampledAnswer, count_tokens

__all__ = ["Counts", "Weights"]


class Weights(NamedTuple):
    """Factors of the sums over the teacher's text, the student's samples and hidden states; None: no such loss."""

    text: float = 1.0
    sampled: float = 1.0
    hidden: float | None = None

    def times_zero(self) -> Weights:
        """Weights with which the same kinds of loss are computed and count nothing."""
        return Weights(0.0, 0.0, None if self.hidden is None else 0.0)


@dataclass(frozen=True)
class Counts:
    """What a global batch holds.

    text           supervised tokens of the teacher's text
    sampled        supervised tokens that the student sampled
    sampled_share  fraction of rows with a sampled answer
    all            all tokens, prompts included
    answers        sampled answers
    cut_off        sampled answers that did not end
    """

    text: int
    sampled: int
    sampled_share: float
    all: int
    answers: int
    cut_off: int

    @staticmethod
    def of(group: Sequence[Sequence[Example]]) -> Counts:
        """Counts of a global batch, which is all of its micro-batches on all ranks."""
        rows = [row for batch in group for row in batch]
        sampled_rows = [row for row in rows if isinstance(row, SampledAnswer)]
        tokens, sampled = (sum(row.n_supervised for row in some) for some in (rows, sampled_rows))
        return Counts(
            text=tokens - sampled,
            sampled=sampled,
            sampled_share=len(sampled_rows) / len(rows),
            all=sum(map(count_tokens, group)),
            answers=len(sampled_rows),
            cut_off=sum(not row.eos_supervised for row in sampled_rows),
        )

    def weights(self, balance: float | None) -> Weights:
        """Each kind of text is averaged over its own tokens and weighted by its share of rows (GKD's lambda).

        Otherwise long answers of a student that has not learnt to stop would outweigh the teacher's text.
        """
        text = (1.0 - self.sampled_share) / self.text if self.text else 0.0
        sampled = self.sampled_share / self.sampled if self.sampled else 0.0
        return Weights(text, sampled, None if balance is None else balance / self.all)

    def lengths(self) -> dict[str, float]:
        """Values for the log on the length of sampled answers; none without sampled answers."""
        if not self.answers:
            return {}
        return {"sampled_length": self.sampled / self.answers, "sampled_cut_off": self.cut_off / self.answers}

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """Values for the log, from sums over the global batch; `loss` is weighted already."""
        divisors = {"loss": 1, "hidden": self.all, "sampled_divergence": self.sampled}
        return {key: total / count for key, total in sums.items() if (count := divisors.get(key, self.text))}
