"""Which rows go through the model together: batches of near-equal lengths under a token budget, the same in every run.

Rows are shuffled, sorted by length inside windows, cut where the padded size would pass the budget, and the batches are
shuffled again. Padding is on the right, where causal attention never looks from a real token, so no mask is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from potstill.chat import Example

__all__ = ["Batch", "collate", "length_batches", "plan_steps"]

_WINDOW_BATCHES = 16


@dataclass(frozen=True)
class Batch:
    """input_ids (B, S) int64, padded right; positions of supervised predictions in the flattened (B*S,), and their
    labels (N,)."""

    input_ids: Tensor
    positions: Tensor
    labels: Tensor


def length_batches(
    lengths: Sequence[int], batch_tokens: int, rng: np.random.Generator | None = None
) -> list[list[int]]:
    """Indices of `lengths` in batches whose padded size (rows x longest) is at most `batch_tokens`.

    A row longer than that is a batch of its own.
    With `rng` the order is random; without, batches come in order of length.
    """
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    mean = max(1.0, float(np.mean(lengths)))
    window = len(lengths) if rng is None else max(1, int(_WINDOW_BATCHES * batch_tokens / mean))
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        batch: list[int] = []
        for index in sorted(order[start : start + window].tolist(), key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    if rng is None:
        return batches
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_steps(
    lengths: Sequence[int], batch_tokens: int, per_step: int, epochs: float, seed: int
) -> list[list[list[int]]]:
    """Every optimizer step of a run, as lists of `per_step` micro-batches of row indices.

    A fractional last epoch is cut; a last step short of micro-batches is dropped unless it is the only one.
    """

    def stream() -> Iterator[list[int]]:
        whole, part = divmod(epochs, 1.0)
        for epoch in range(int(whole) + (part > 0)):
            batches = length_batches(lengths, batch_tokens, np.random.default_rng([seed, epoch]))
            yield from batches if epoch < whole else batches[: max(1, round(part * len(batches)))]

    flat = list(stream())
    steps = [flat[i : i + per_step] for i in range(0, len(flat), per_step)]
    if len(steps) > 1 and len(steps[-1]) < per_step:
        steps.pop()
    return steps


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad rows on the right and point at each supervised prediction: the position before each completion token."""
    width = max(len(e.ids) for e in examples)
    input_ids = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    positions: list[Tensor] = []
    labels: list[Tensor] = []
    for row, example in enumerate(examples):
        ids = torch.tensor(example.ids, dtype=torch.int64)
        input_ids[row, : len(ids)] = ids
        positions.append(row * width + torch.arange(example.n_prompt - 1, len(ids) - 1))
        labels.append(ids[example.n_prompt :])
    return Batch(input_ids, torch.cat(positions), torch.cat(labels))
