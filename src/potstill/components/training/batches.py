"""Micro-batches: a random mix of rows, packed into one sequence with little padding.

A micro-batch takes rows in random order up to a token budget, sorts them by length, and splits them into groups that
are padded to their longest row. The groups follow each other in one sequence, after the prefix that all rows share, and
attention is computed per group (`training.attention`). Batches of rows of near-equal length would need no groups, but
rows of one length tend to be of one kind, which would bias the gradient of each step.
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
    from potstill.components.training.alignments import AlignedBatch

__all__ = [
    "Batch",
    "SampledAnswer",
    "count_tokens",
    "length_groups",
    "longest_first",
    "pack",
    "plan_steps",
    "token_batches",
]

# The cost of one more group, in tokens of padding: it needs an attention call of its own in every layer.
_GROUP_COST = 32
# Lengths are rounded up to multiples of these, so that tensors have few different sizes. With ever new sizes the heap
# grows, and allocation slows down (docs/decisions.md).
_LENGTH_STEP = 8
_PLACES_STEP = 256


@dataclass(frozen=True)
class SampledAnswer(Example):
    """A prompt with an answer that the student sampled, and the log-probability (nats) of each sampled token."""

    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: T places that hold packed rows, M of them tokens, N of those supervised.

    input_ids         (1, T) int64, the shared prefix, then the rest of each row, padded right to its group's length
    position_ids      (1, T) int64, counted from 0 in the prefix, and on from its end in each row
    positions         (N,) int64, places in T whose next token is supervised
    labels            (N,) int64, those next tokens
    tokens            (M,) int64, places in T that are not padding, with the shared prefix once
    layout            where prefix and rows are in T
    targets           the teacher's stored distributions for the N tokens, if they are stored
    aligned           the same rows in the teacher's tokens, if the teacher has another tokenizer
    sampled           (N,) bool, which tokens the student sampled; None in a batch without sampled answers
    sampled_logprobs  (N,) fp32, log-probabilities (nats) with which those were sampled
    """

    input_ids: Tensor
    position_ids: Tensor
    positions: Tensor
    labels: Tensor
    tokens: Tensor
    layout: Layout
    targets: SparseTargets | None = None
    aligned: AlignedBatch | None = None
    sampled: Tensor | None = None
    sampled_logprobs: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            positions=self.positions.to(device),
            labels=self.labels.to(device),
            tokens=self.tokens.to(device),
            targets=self.targets.to(device) if self.targets else None,
            aligned=self.aligned.to(device) if self.aligned else None,
            sampled=None if self.sampled is None else self.sampled.to(device),
            sampled_logprobs=None if self.sampled_logprobs is None else self.sampled_logprobs.to(device),
        )


def token_batches(lengths: Sequence[int], batch_tokens: int, rng: np.random.Generator | None = None) -> list[list[int]]:
    """Indices into `lengths`, in batches of at most `batch_tokens` tokens; a longer row is a batch of its own.

    The order is random with `rng`, and by length without.
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
    """All optimizer steps of a run, each a list of `per_step` micro-batches of row indices.

    A fractional last epoch ends early. The last step has what is left, which may be fewer micro-batches.
    """

    def stream() -> Iterator[list[int]]:
        whole, part = divmod(epochs, 1.0)
        for epoch in range(int(whole) + (part > 0)):
            batches = token_batches(lengths, batch_tokens, np.random.default_rng([seed, epoch]))
            yield from batches if epoch < whole else batches[: max(1, round(part * len(batches)))]

    flat = list(stream())
    return [flat[i : i + per_step] for i in range(0, len(flat), per_step)]


def length_groups(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Split `lengths`, sorted in descending order, into groups of (number of rows, length to pad to).

    The split has the least padding plus `_GROUP_COST` per group. Lengths are rounded up to `_LENGTH_STEP`.
    """
    # rows of equal length stay together: separating them saves no padding and costs a group
    runs = [(length, len(list(run))) for length, run in groupby(-(-n // _LENGTH_STEP) * _LENGTH_STEP for n in lengths)]
    best = [(0, 0)]  # per number of runs: the least cost, and where the last group begins
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
    """`length_groups`, and a last group of padding only, so that batches have few different sizes."""
    groups = length_groups(lengths)
    places = prefix + sum(rows * length for rows, length in groups)
    rest = -places % _places_step(places)
    return (*groups, (1, rest)) if rest else groups


def _places_step(places: int) -> int:
    """A power of two, at most a sixteenth of the places (more is slower), from `_LENGTH_STEP` to `_PLACES_STEP`."""
    return max(_LENGTH_STEP, min(_PLACES_STEP, 1 << max(0, (places // 16).bit_length() - 1)))


def _common_prefix(examples: Sequence[Example]) -> int:
    """Length of what all rows begin with, up to the last token of the shortest prompt; 0 if it saves too little."""
    first, last = min(e.ids for e in examples), max(e.ids for e in examples)
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    prefix = min(same, *(e.n_prompt - 1 for e in examples))
    return prefix if (len(examples) - 1) * prefix > _GROUP_COST else 0


def count_tokens(examples: Sequence[Example]) -> int:
    """Number of tokens in a batch of these rows, with the shared prefix once: the length of `Batch.tokens`."""
    return sum(len(e.ids) for e in examples) - (len(examples) - 1) * _common_prefix(examples)


def longest_first(examples: Sequence[Example]) -> list[Example]:
    """Rows in the order in which they are packed."""
    return sorted(examples, key=lambda e: -len(e.ids))


def pack(
    examples: Sequence[Example],
    pad_id: int,
    targets: Callable[[Sequence[Example]], SparseTargets | None] | None = None,
    *,
    share_prefix: bool = True,
) -> Batch:
    """Pack rows into one sequence; each supervised position is the place before a completion token.

    Args:
        examples: the rows.
        pad_id: token id of padding.
        targets: returns the stored targets of rows, in the order of its argument.
        share_prefix: whether tokens that all rows begin with are stored once.
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
    sampled, sampled_logprobs = _sampled_tokens(ordered)
    return Batch(
        input_ids=input_ids[None],
        position_ids=position_ids[None],
        positions=torch.cat(positions),
        labels=torch.cat(labels),
        tokens=torch.cat(tokens),
        layout=Layout(groups, prefix),
        targets=stored,
        sampled=sampled,
        sampled_logprobs=sampled_logprobs,
    )


def _sampled_tokens(examples: Sequence[Example]) -> tuple[Tensor | None, Tensor | None]:
    """`Batch.sampled` and `Batch.sampled_logprobs` of rows in this order."""
    if not any(isinstance(e, SampledAnswer) for e in examples):
        return None, None
    sampled = [torch.full((e.n_supervised,), isinstance(e, SampledAnswer)) for e in examples]
    logprobs = [torch.tensor(e.log_probs if isinstance(e, SampledAnswer) else [0.0] * e.n_supervised) for e in examples]
    return torch.cat(sampled), torch.cat(logprobs)
