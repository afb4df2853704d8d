"""Divergence from stored, sparse targets: sampled counts, or the likeliest tokens and the mass of all others.

Shapes: N tokens, V vocabulary, H hidden size, M stored entries. p is the target, q the student at the temperature.

The student is not renormalised over the stored tokens: q has its full logsumexp, so every token gets a gradient. For
sampled counts, the loss is KL(counts / draws || q), the cross-entropy minus the entropy of the target (Anshumann et al.
2025). With a tail, the tokens that are not stored form one bucket. Its distribution is the softmax of the logits with
the stored ones masked, so that neither its probability nor its gradient is computed as 1 minus a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potstill.components.losses.chunks import LossSums, Work, chunk_rows, kept_rows, pick, run
from potstill.components.losses.divergence import true_vocab
from potstill.components.losses.rows import RowSpec, block_rows, softmax_lse

__all__ = ["SparseTargets", "linear_sparse_divergence"]

_MASS_TOLERANCE = 0.01  # stored probabilities are rounded to a grid
# 1 minus a float32 sum of up to about 100 probabilities can be this far below 0
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SparseTargets:
    """Targets of N tokens in compressed sparse rows.

    offsets    (N + 1,) int64, the entries of token n are offsets[n] to offsets[n + 1]
    token_ids  (M,) int64, distinct within a row
    probs      (M,) fp32, at the temperature of the loss
    tail_N     (N,) fp32, the mass of all tokens that are not stored; None for sampled counts, whose rows sum to 1
    """

    offsets: Tensor
    token_ids: Tensor
    probs: Tensor
    tail_N: Tensor | None = None

    @staticmethod
    def from_arrays(offsets: Any, token_ids: Any, probs: Any, tail: Any = None) -> SparseTargets:
        """Targets from the NumPy arrays that a store of targets returns; a tail that rounding took below 0 is 0."""
        tail_N = None if tail is None else torch.as_tensor(tail, dtype=torch.float32)
        if tail_N is not None:
            tail_N = torch.where(tail_N.abs() < _ROUNDING, tail_N.clamp(min=0.0), tail_N)
        return SparseTargets(
            torch.as_tensor(offsets, dtype=torch.int64),
            torch.as_tensor(token_ids, dtype=torch.int64),
            torch.as_tensor(probs, dtype=torch.float32),
            tail_N,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to(self, device: torch.device | str) -> SparseTargets:
        """The targets on another device."""
        tail_N = None if self.tail_N is None else self.tail_N.to(device)
        return SparseTargets(self.offsets.to(device), self.token_ids.to(device), self.probs.to(device), tail_N)

    def select(self, rows_N: Tensor) -> SparseTargets:
        """The targets of some tokens (int64 indices), in the order of `rows_N`."""
        counts_N = self.offsets.diff()[rows_N]
        offsets = torch.cat([counts_N.new_zeros(1), counts_N.cumsum(0)])
        # how far each row has moved
        moved_N = self.offsets[:-1][rows_N] - offsets[:-1]
        entries_M = torch.arange(int(offsets[-1]), device=offsets.device) + moved_N.repeat_interleave(counts_N)
        tail_N = None if self.tail_N is None else self.tail_N[rows_N]
        return SparseTargets(offsets, self.token_ids[entries_M], self.probs[entries_M], tail_N)

    def row_of_entry(self) -> Tensor:
        """(M,) int64, the token of each entry."""
        counts_N = self.offsets.diff()
        return torch.arange(len(counts_N), device=counts_N.device).repeat_interleave(counts_N)

    def require(self, tokens: int, vocab: int) -> None:
        """Check that these are targets of `tokens` tokens.

        Raises:
            ValueError: lengths do not match, ids are outside the vocabulary, a mass is negative, or a row does not
                sum to 1.
        """
        entries = len(self.token_ids)
        if len(self) != tokens or (self.tail_N is not None and len(self.tail_N) != tokens):
            raise ValueError(f"{tokens} hidden states, but targets of {len(self)} tokens")
        if len(self.probs) != entries or int(self.offsets[-1]) != entries:
            raise ValueError(
                f"targets: {entries} token ids, {len(self.probs)} probs, offsets up to {int(self.offsets[-1])}"
            )
        if entries and not 0 <= int(self.token_ids.min()) <= int(self.token_ids.max()) < vocab:
            raise ValueError(f"targets: token id {int(self.token_ids.max())} is outside the vocabulary of {vocab}")
        if entries and float(self.probs.min()) < 0.0:
            raise ValueError(f"targets: a probability is negative: {float(self.probs.min()):.3g}")
        if self.tail_N is not None and tokens and float(self.tail_N.min()) < 0.0:
            raise ValueError(f"targets: a tail is negative: {float(self.tail_N.min()):.3g}")
        off_N = (self.mass() - 1.0).abs() > _MASS_TOLERANCE
        if bool(off_N.any()):
            row = int(off_N.nonzero()[0])
            raise ValueError(
                f"targets: row {row} sums to {float(self.mass()[row]):.4f}, not 1. "
                "For the likeliest tokens, give the mass of all others as tail_N. "
                "Divide sampled counts by the number of draws."
            )

    def mass(self) -> Tensor:
        """(N,) sum of each row, tail included."""
        start = self.probs.new_zeros(len(self)) if self.tail_N is None else self.tail_N
        return start.index_add(0, self.row_of_entry(), self.probs)


def linear_sparse_divergence(
    student_NH: Tensor,
    head_VH: Tensor,
    labels_N: Tensor,
    targets: SparseTargets,
    *,
    temperature: float = 1.0,
    hard_label_weight: float = 0.0,
    ignore_index: int = -100,
    weights_N: Tensor | None = None,
    student_softcap: float | None = None,
    vocab_size: int | None = None,
    chunk_tokens: int | None = None,
) -> LossSums:
    """Sum over tokens of w ((1 - hard) T^2 KL(targets || q_T) + hard CE(labels)), over buckets if there is a tail.

    Args:
        targets: one row per row of `student_NH`, made at temperature T.
        others: as for `linear_divergence`.

    Returns:
        Sums in nats, with the mass of student and targets on the stored tokens.

    Raises:
        ValueError: shapes, labels or targets do not match, or a number is outside its range.
    """
    vocab = true_vocab(head_VH, None, vocab_size)
    spec = RowSpec.of("forward_kl", temperature=temperature, hard=hard_label_weight, student_softcap=student_softcap)
    targets.require(len(student_NH), vocab)
    rows, kept = kept_rows(labels_N, weights_N, ignore_index, vocab, len(student_NH))
    labels_N, weights_N = pick(labels_N, weights_N, kept)
    targets = targets if kept is None else targets.select(kept)
    step = chunk_rows(rows, vocab, student_NH.device, chunk_tokens, head_VH.shape[1])
    score = _SparseRows(spec, targets, labels_N, weights_N)
    work = Work(score, 4, rows, kept, weights_N, vocab, temperature, spec.hard, step, torch.is_grad_enabled())
    return run(student_NH, head_VH, work)


class _SparseRows:
    """Scores chunks of logits against the targets of the kept rows."""

    def __init__(self, spec: RowSpec, targets: SparseTargets, labels_N: Tensor, weights_N: Tensor | None) -> None:
        self.spec, self.targets, self.labels_N, self.weights_N = spec, targets, labels_N, weights_N
        self.mass_N, self.row_M = targets.mass(), targets.row_of_entry()
        self.ends = targets.offsets.tolist()
        self._scratch: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, z_NV: Tensor, chunk: slice, values_KN: Tensor) -> None:
        step = block_rows(z_NV.shape[1], z_NV.device)
        if not self._scratch:
            # q at temperature 1; the slope of the soft cap
            needed = self.spec.temperature != 1.0, self.spec.student_softcap is not None
            shape = min(step, len(z_NV)), z_NV.shape[1]
            self._scratch = [z_NV.new_empty(shape if need else (0, 0)) for need in needed]
        for start in range(0, len(z_NV), step):
            rows = slice(start, min(start + step, len(z_NV)))
            self._block(z_NV[rows], chunk.start + start, values_KN[:, rows])

    def _block(self, z_NV: Tensor, first: int, values_KN: Tensor) -> None:
        spec, rows = self.spec, slice(first, first + len(z_NV))
        hard_q_NV, slope_NV = (scratch_NV[: len(z_NV)] for scratch_NV in self._scratch)
        if spec.student_softcap is not None:
            z_NV.mul_(spec.temperature / spec.student_softcap).tanh_()
            torch.mul(z_NV, z_NV, out=slope_NV).neg_().add_(1.0)
            z_NV.mul_(spec.student_softcap / spec.temperature)
        labels_N1 = self.labels_N[rows, None]
        label_z_N = z_NV.gather(1, labels_N1)[:, 0] * spec.temperature
        tempered = spec.temperature != 1.0
        if tempered:
            lse_1_N = softmax_lse(torch.mul(z_NV, spec.temperature, out=hard_q_NV), hard_q_NV)
        lse_N = self._kl(z_NV, rows, values_KN)
        values_KN[1] = (lse_1_N if tempered else lse_N) - label_z_N
        if spec.hard:
            if tempered:
                z_NV.add_(hard_q_NV, alpha=spec.hard)
            z_NV.scatter_add_(1, labels_N1, z_NV.new_full((len(z_NV), 1), -spec.hard))
        if self.weights_N is not None:
            z_NV.mul_(self.weights_N[rows, None])
        if spec.student_softcap is not None:
            z_NV.mul_(slope_NV)

    def _kl(self, z_NV: Tensor, rows: slice, values_KN: Tensor) -> Tensor:
        """Overwrite z with the gradient of the divergence; returns the full logsumexp (N,)."""
        spec, n, tail_N = self.spec, len(z_NV), self.targets.tail_N
        low, high = self.ends[rows.start], self.ends[rows.stop]
        p_M, row_M, mass_N = self.targets.probs[low:high], self.row_M[low:high] - rows.start, self.mass_N[rows]
        # in int64, because a chunk may have more than 2^31 logits
        place_M = row_M * z_NV.shape[1] + self.targets.token_ids[low:high]
        flat = z_NV.view(-1)
        z_M = flat[place_M]
        if tail_N is not None:
            flat.index_fill_(0, place_M, -torch.inf)
        lse_N = lse_rest_N = softmax_lse(z_NV, z_NV)
        if tail_N is not None:
            if high - low >= z_NV.shape[1]:
                # if a whole row is stored, nothing is left of it
                z_NV.nan_to_num_(0.0)
                lse_rest_N = lse_rest_N.nan_to_num(-torch.inf)
            lse_N = torch.logaddexp(lse_rest_N, _segment_lse(z_M, row_M, n))
        log_q_M = z_M - lse_N[row_M]
        q_M = log_q_M.exp()
        entry_M = torch.xlogy(p_M, p_M) - p_M * log_q_M
        divergence_N = z_NV.new_zeros(n).index_add_(0, row_M, entry_M)
        soft, hard = (1.0 - spec.hard) * spec.temperature, spec.hard if spec.temperature == 1.0 else 0.0
        if tail_N is None:
            # gradient: mass q - p everywhere, p being 0 where nothing is stored
            z_NV.mul_((soft * mass_N + hard)[:, None])
            flat.index_add_(0, place_M, p_M, alpha=-soft)
        else:
            p_rest_N, log_q_rest_N = tail_N[rows], lse_rest_N - lse_N
            q_rest_N = log_q_rest_N.exp()
            # an empty bucket costs nothing; 0 times the log of nothing would be NaN
            lost_N = torch.where(p_rest_N > 0, p_rest_N * log_q_rest_N, 0.0)
            divergence_N += torch.xlogy(p_rest_N, p_rest_N) - lost_N
            z_NV.mul_((soft * (mass_N * q_rest_N - p_rest_N) + hard * q_rest_N)[:, None])
            flat.index_copy_(0, place_M, soft * (mass_N[row_M] * q_M - p_M) + hard * q_M)
        values_KN[0] = divergence_N * spec.temperature**2
        values_KN[2].zero_().index_add_(0, row_M, q_M)
        values_KN[3].zero_().index_add_(0, row_M, p_M)
        return lse_N


def _segment_lse(z_M: Tensor, row_M: Tensor, n: int) -> Tensor:
    """Logsumexp of each row's entries; -inf for a row without any."""
    highest_N = z_M.new_full((n,), -torch.inf).scatter_reduce_(0, row_M, z_M, "amax")
    sum_N = z_M.new_zeros(n).index_add_(0, row_M, (z_M - highest_N[row_M]).exp())
    return torch.where(sum_N > 0, highest_N + sum_N.log(), -torch.inf)
