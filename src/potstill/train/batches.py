"""Which rows go through the model together: a random mix of rows, packed so that little is padding.

A micro-batch takes rows in random order up to a token budget, and packs them first-fit into sequences of 256 tokens, or
as long as its longest row. Rows in one sequence do not see each other: attention is causal inside each row, and
positions begin at 0. (Batches of near-equal lengths would need no mask, but rows of one length tend to be of one kind,
which makes each step's gradient lopsided.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from potstill.chat import Example

__all__ = ["Batch", "pack", "plan_steps", "token_batches"]

_WIDTH = 256


@dataclass(frozen=True)
class Batch:
    """One micro-batch: B packed sequences of S positions, N supervised tokens.

    input_ids     (B, S) int64, padded right
    position_ids  (B, S) int64, from 0 in each row
    mask          (B, 1, S, S) bool, True where a query (first S) may look at a key (second S)
    positions     (N,) int64, places in the flattened (B * S) whose next token is supervised
    labels        (N,) int64, those next tokens
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def token_batches(lengths: Sequence[int], batch_tokens: int, rng: np.random.Generator | None = None) -> list[list[int]]:
    """Indices of `lengths` in batches of at most `batch_tokens` tokens; a longer row is a batch of its own.

    With `rng` the order is random; without, it is by length.
    """
    order = np.argsort(lengths, kind="stable") if rng is None else rng.permutation(len(lengths))
    batches: list[list[int]] = []
    room = 0
    for index in order.tolist():
        if lengths[index] > room:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= lengths[index]
    return batches


def plan_steps(
    lengths: Sequence[int], batch_tokens: int, per_step: int, epochs: float, seed: int
) -> list[list[list[int]]]:
    """Every optimizer step of a run, as lists of `per_step` micro-batches of row indices.

    A fractional last epoch is cut; a last step short of micro-batches is dropped unless it is the only one.
    """

    def stream() -> Iterator[list[int]]:
        whole, part = divmod(epochs, 1.0)
        for epoch in range(int(whole) + (part > 0)):
            batches = token_batches(lengths, batch_tokens, np.random.default_rng([seed, epoch]))
            yield from batches if epoch < whole else batches[: max(1, round(part * len(batches)))]

    flat = list(stream())
    steps = [flat[i : i + per_step] for i in range(0, len(flat), per_step)]
    if len(steps) > 1 and len(steps[-1]) < per_step:
        steps.pop()
    return steps


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of `lengths` in bins of `width`, longest first (first-fit decreasing)."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, room in enumerate(rooms) if lengths[index] <= room), None)
        if place is None:
            bins.append([])
            rooms.append(width)
            place = len(bins) - 1
        bins[place].append(index)
        rooms[place] -= lengths[index]
    return bins


def pack(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pack rows into sequences, and point at each supervised prediction: the place before each completion token."""
    total = sum(len(e.ids) for e in examples)
    width = max(min(_WIDTH, total), *(len(e.ids) for e in examples))
    bins = _first_fit([len(e.ids) for e in examples], width)
    input_ids = torch.full((len(bins), width), pad_id, dtype=torch.int64)
    position_ids = torch.zeros_like(input_ids)
    # every pad is a row of its own, so that no row of the mask is empty
    row_of = -1 - torch.arange(width).repeat(len(bins), 1)
    positions: list[Tensor] = []
    labels: list[Tensor] = []
    for number, members in enumerate(bins):
        start = 0
        for row, index in enumerate(members):
            example, ids = examples[index], torch.tensor(examples[index].ids, dtype=torch.int64)
            end = start + len(ids)
            input_ids[number, start:end] = ids
            position_ids[number, start:end] = torch.arange(len(ids))
            row_of[number, start:end] = row
            base = number * width + start
            positions.append(torch.arange(base + example.n_prompt - 1, base + len(ids) - 1))
            labels.append(ids[example.n_prompt :])
            start = end
    mask = (row_of[:, :, None] == row_of[:, None, :]).tril()
    return Batch(input_ids, position_ids, mask[:, None], torch.cat(positions), torch.cat(labels))
