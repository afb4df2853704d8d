"""Which rows go through the model together: a random mix of rows, laid end to end with little padding.

A micro-batch takes rows in random order up to a token budget, sorts them by length, and cuts them into groups that are
padded to their longest row. Groups lie one after another in one sequence; attention takes each group by itself, after
what all rows begin with, which is there once (`training.attention`). (Batches of near-equal lengths would need no
groups, but rows of one length tend to be of one kind, which makes each step's gradient lopsided.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from potstill.components.chat.format import Example
from potstill.components.losses.sparse import SparseTargets
from potstill.components.training.attention import Layout

if TYPE_CHECKING:
    from potstill.components.training.readings import Reading

__all__ = [
    "Batch",
    "OwnAnswer",
    "count_tokens",
    "length_groups",
    "longest_first",
    "pack",
    "plan_steps",
    "token_batches",
]

# what one more group costs, in tokens of padding: its attention is called apart in every layer
_GROUP_COST = 32
# Lengths are rounded up to these, so that tensors come in few sizes: a heap of ever new sizes grows and slows down
# (docs/decisions.md).
_LENGTH_STEP = 8
_PLACES_STEP = 256


@dataclass(frozen=True)
class OwnAnswer(Example):
    """A prompt with an answer that the student itself drew, and ln of each token's probability of being drawn."""

    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: T places of rows laid end to end, M of them tokens, N of those supervised.

    input_ids     (1, T) int64, the rows' common prefix, then the rest of each row padded right to its group's length
    position_ids  (1, T) int64, from 0 in the prefix, and on from its end in each row
    positions     (N,) int64, places in T whose next token is supervised
    labels        (N,) int64, those next tokens
    tokens        (M,) int64, places in T that are not padding, those of the common prefix once
    layout        where prefix and rows lie in T
    targets       the teacher's stored distributions for the N tokens, where they are stored
    reading       the same rows in the tokens of a teacher that has others
    own           (N,) bool, tokens that the student drew itself, in a batch that has such
    drawn         (N,) fp32, ln of the probability that each of those was drawn with
    """

    input_ids: Tensor
    position_ids: Tensor
    positions: Tensor
    labels: Tensor
    tokens: Tensor
    layout: Layout
    targets: SparseTargets | None = None
    reading: Reading | None = None
    own: Tensor | None = None
    drawn: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            positions=self.positions.to(device),
            labels=self.labels.to(device),
            tokens=self.tokens.to(device),
            targets=self.targets.to(device) if self.targets else None,
            reading=self.reading.to(device) if self.reading else None,
            own=None if self.own is None else self.own.to(device),
            drawn=None if self.drawn is None else self.drawn.to(device),
        )


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


def length_groups(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Cut `lengths`, sorted falling, into groups of (rows, length to pad to).

    They have the least padding plus `_GROUP_COST` each; lengths are rounded up to `_LENGTH_STEP`.
    """
    # rows of one length stay together: to part them saves no padding and costs a group
    runs = [(length, len(list(run))) for length, run in groupby(-(-n // _LENGTH_STEP) * _LENGTH_STEP for n in lengths)]
    best = [(0, 0)]  # for the first n runs: cost, and where their last group begins
    for end in range(1, len(runs) + 1):
        rows = total = 0
        options = []
        for start in range(end - 1, -1, -1):
            length, count = runs[start]
            rows += count
            total += count * length
            options.append((best[start][0] + rows * length - total + _GROUP_COST, start))
        best.append(min(options))
    groups: list[tuple[int, int]] = []
    end = len(runs)
    while end:
        start = best[end][1]
        groups.append((sum(count for _, count in runs[start:end]), runs[start][0]))
        end = start
    return tuple(reversed(groups))


def _groups(lengths: Sequence[int], prefix: int) -> tuple[tuple[int, int], ...]:
    """`length_groups`, and padding alone last, so that batches come in few sizes."""
    groups = length_groups(lengths)
    places = prefix + sum(rows * length for rows, length in groups)
    rest = -places % _places_step(places)
    return (*groups, (1, rest)) if rest else groups


def _places_step(places: int) -> int:
    """A power of two, at most a sixteenth of the places (more is felt), from `_LENGTH_STEP` to `_PLACES_STEP`."""
    return max(_LENGTH_STEP, min(_PLACES_STEP, 1 << max(0, (places // 16).bit_length() - 1)))


def _common_prefix(examples: Sequence[Example]) -> int:
    """Tokens that all rows begin with, short of the last token of any prompt; 0 where sharing them saves too little."""
    first, last = min(e.ids for e in examples), max(e.ids for e in examples)
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    prefix = min(same, *(e.n_prompt - 1 for e in examples))
    return prefix if (len(examples) - 1) * prefix > _GROUP_COST else 0


def count_tokens(examples: Sequence[Example]) -> int:
    """Tokens of a batch of these rows, those that all rows begin with once: the length of `Batch.tokens`."""
    return sum(len(e.ids) for e in examples) - (len(examples) - 1) * _common_prefix(examples)


def longest_first(examples: Sequence[Example]) -> list[Example]:
    """Rows in the order in which a batch has them."""
    return sorted(examples, key=lambda e: -len(e.ids))


def pack(
    examples: Sequence[Example],
    pad_id: int,
    targets: Callable[[Sequence[Example]], SparseTargets | None] | None = None,
    *,
    share_prefix: bool = True,
) -> Batch:
    """Lay rows end to end, and point at each supervised prediction: the place before each completion token.

    Args:
        examples: the rows.
        pad_id: fills up a group.
        targets: gives the stored targets of rows, in the order it is given them.
        share_prefix: keep what all rows begin with once.
    """
    ordered = longest_first(examples)
    prefix = _common_prefix(ordered) if share_prefix else 0
    groups = _groups([len(e.ids) - prefix for e in ordered], prefix)
    widths = [length for rows, length in groups for _ in range(rows)]
    input_ids = torch.full((prefix + sum(widths),), pad_id, dtype=torch.int64)
    input_ids[:prefix] = torch.tensor(ordered[0].ids[:prefix], dtype=torch.int64)
    position_ids = torch.cat([torch.arange(prefix), *(torch.arange(prefix, prefix + width) for width in widths)])
    positions: list[Tensor] = []
    labels: list[Tensor] = []
    tokens = [torch.arange(prefix)]
    start = prefix
    for example, width in zip(ordered, widths, strict=False):
        ids, n_prompt = torch.tensor(example.ids[prefix:], dtype=torch.int64), example.n_prompt - prefix
        input_ids[start : start + len(ids)] = ids
        positions.append(torch.arange(start + n_prompt - 1, start + len(ids) - 1))
        labels.append(ids[n_prompt:])
        tokens.append(torch.arange(start, start + len(ids)))
        start += width
    stored = targets(ordered) if targets else None
    own, drawn = _own_tokens(ordered)
    return Batch(
        input_ids=input_ids[None],
        position_ids=position_ids[None],
        positions=torch.cat(positions),
        labels=torch.cat(labels),
        tokens=torch.cat(tokens),
        layout=Layout(groups, prefix),
        targets=stored,
        own=own,
        drawn=drawn,
    )


def _own_tokens(examples: Sequence[Example]) -> tuple[Tensor | None, Tensor | None]:
    """`Batch.own` and `Batch.drawn` of rows, in their order."""
    if not any(isinstance(e, OwnAnswer) for e in examples):
        return None, None
    own = [torch.full((e.n_supervised,), isinstance(e, OwnAnswer)) for e in examples]
    drawn = [torch.tensor(e.log_probs if isinstance(e, OwnAnswer) else [0.0] * e.n_supervised) for e in examples]
    return torch.cat(own), torch.cat(drawn)
