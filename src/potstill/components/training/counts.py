"""How many tokens of each kind a global batch has, and with what weight each kind's sum enters the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from potstill.components.chat.format import Example
from potstill.components.training.batches import OwnAnswer, count_tokens

__all__ = ["Counts", "Weights"]


class Weights(NamedTuple):
    """What the sums over the teacher's text, the student's own, and hidden states are multiplied by; None: left out."""

    text: float = 1.0
    own: float = 1.0
    hidden: float | None = None


@dataclass(frozen=True)
class Counts:
    """Supervised tokens of the teacher's text and of the student's own; share of rows with the latter; all tokens."""

    text: int
    own: int
    own_share: float
    all: int

    @staticmethod
    def of(group: Sequence[Sequence[Example]]) -> Counts:
        """Of a global batch: each of its micro-batches, those of other ranks too."""
        rows = [row for batch in group for row in batch]
        own = [row for row in rows if isinstance(row, OwnAnswer)]
        tokens, own_tokens = (sum(row.n_supervised for row in some) for some in (rows, own))
        return Counts(tokens - own_tokens, own_tokens, len(own) / len(rows), sum(map(count_tokens, group)))

    def weights(self, balance: float | None) -> Weights:
        """Each kind of text is a mean over its own tokens, weighted by its share of rows (GKD's lambda).

        Long answers of a student that does not know when to stop would otherwise outweigh the teacher's text.
        """
        text = (1.0 - self.own_share) / self.text if self.text else 0.0
        own = self.own_share / self.own if self.own else 0.0
        return Weights(text, own, None if balance is None else balance / self.all)

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """The log's values from sums over the global batch; `loss` is weighted already."""
        divisors = {"loss": 1, "hidden": self.all, "own_divergence": self.own}
        return {key: total / count for key, total in sums.items() if (count := divisors.get(key, self.text))}
