"""Chunks of tokens through an output head: logits in one reused buffer, and gradients computed in the forward pass.

Shapes: N tokens, H hidden size, V vocabulary, K values that are logged per token.

Most of the work is the matrix product with the head, so the rest is arranged around it: rows without a loss are dropped
before it, the logits are overwritten with their gradient, and the gradient of a frozen head is not computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.core.memory import ALIGNED_ROWS, loss_chunk_tokens

__all__ = ["LossSums", "Work", "chunk_rows", "kept_rows", "pick", "project", "run"]

_CUDA_TOKENS = 4096
_CAST_ROWS = 4096  # on a CPU, rows of a half-precision head that are converted to fp32 at a time


class LossSums(NamedTuple):
    """Sums over tokens, in nats, with weights applied. `loss` carries the gradient, and the others are for logs.

    With sparse targets, the masses are the probability of the stored tokens, under the student and under the teacher.
    """

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor
    student_mass: Tensor | None = None
    teacher_mass: Tensor | None = None


@dataclass(frozen=True)
class Work:
    """What one call of a fused loss does, without the tensors that get a gradient.

    `score` takes the student's logits over the temperature, (n, V), fp32, contiguous; the kept rows that they belong
    to; and values (K, n) to fill: the divergence (times T^2), the cross-entropy, and what else is logged. It overwrites
    the logits with the gradient of the loss with respect to the logits before the division by the temperature.
    """

    score: Callable[[Tensor, slice, Tensor], None]
    values: int
    rows: int
    kept: Tensor | None
    weights_N: Tensor | None
    vocab: int
    temperature: float
    hard: float
    chunk_tokens: int
    gradients: bool


def kept_rows(
    labels_N: Tensor, weights_N: Tensor | None, ignore_index: int, vocab: int, tokens: int
) -> tuple[int, Tensor | None]:
    """The number of rows that have a loss, and their indices (None: all rows).

    Raises:
        ValueError: labels or weights do not match the hidden states, or a label is outside the vocabulary.
    """
    if labels_N.shape != (tokens,) or (weights_N is not None and weights_N.shape != (tokens,)):
        shape = tuple(labels_N.shape if weights_N is None else weights_N.shape)
        raise ValueError(f"{tokens} hidden states, but labels or weights of shape {shape}: give one per token")
    keep_N = labels_N != ignore_index
    strange_N = keep_N & ((labels_N < 0) | (labels_N >= vocab))
    if weights_N is not None:
        keep_N = keep_N & (weights_N != 0)
    # one synchronization with the device instead of three
    rows, strange = torch.stack([keep_N.sum(), strange_N.sum()]).tolist()
    if strange:
        row = int(strange_N.nonzero()[0])
        raise ValueError(f"{strange} labels are outside the vocabulary of {vocab}: row {row} has {int(labels_N[row])}")
    return rows, None if rows == tokens else keep_N.nonzero()[:, 0]


def pick(labels_N: Tensor, weights_N: Tensor | None, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Labels and fp32 weights of the kept rows."""
    weights_N = None if weights_N is None else weights_N.float()
    if kept is None:
        return labels_N, weights_N
    return labels_N[kept], None if weights_N is None else weights_N[kept]


def chunk_rows(rows: int, vocab: int, device: torch.device, wanted: int | None, student: int, teacher: int = 0) -> int:
    """Tokens per chunk. Chunks are of near-equal size, because matrix products over a small last chunk are inefficient.

    Args:
        rows: number of tokens.
        vocab: size of the vocabulary.
        device: where the matrix products run.
        wanted: maximum number of tokens per chunk; None: what suits the device.
        student: hidden size of the student.
        teacher: hidden size of the teacher, if its logits are computed too.
    """
    most = wanted or loss_chunk_tokens(vocab, student, teacher)
    if wanted is None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # two buffers of fp32 logits may take a quarter of the free memory
        most = max(128, min(_CUDA_TOKENS, free // 4 // (8 * vocab) // 128 * 128))
    if most < 1:
        raise ValueError(f"chunk_tokens is {wanted}; it must be at least 1")
    chunks = max(1, -(-rows // most))
    return min(-(-rows // (chunks * ALIGNED_ROWS)) * ALIGNED_ROWS, most)


def project(rows_NH: Tensor, head_VH: Tensor, temperature: float, out_NV: Tensor) -> None:
    """out_NV = rows_NH @ head_VH.T / temperature in fp32, for any number formats of rows and head."""
    if _on_tensor_cores(rows_NH, head_VH):
        torch.mm(rows_NH, head_VH.T, out_dtype=torch.float32, out=out_NV)
        # dividing half-precision rows instead would round them once more
        if temperature != 1.0:
            out_NV.mul_(1.0 / temperature)
        return
    rows_NH = rows_NH.float()
    if temperature != 1.0:
        rows_NH = rows_NH * (1.0 / temperature)
    for tile in _tiles(head_VH):
        torch.mm(rows_NH, head_VH[tile].float().T, out=out_NV[:, tile])


def _on_tensor_cores(rows_NH: Tensor, head_VH: Tensor) -> bool:
    return rows_NH.is_cuda and rows_NH.dtype == head_VH.dtype and head_VH.dtype in (torch.bfloat16, torch.float16)


def _tiles(head_VH: Tensor) -> list[slice]:
    """One slice for an fp32 head; several for any other, so that the whole head is never converted to fp32 at once."""
    step = max(1, len(head_VH)) if head_VH.dtype == torch.float32 else _CAST_ROWS
    return [slice(start, start + step) for start in range(0, len(head_VH), step)]


class _Gradients:
    """Gradients that are summed chunk by chunk, the head's in fp32 until the end; None if they are not needed."""

    def __init__(self, student_NH: Tensor, head_VH: Tensor, work: Work, needs: tuple[bool, bool]) -> None:
        self.work, self.written = work, False
        self.hidden_NH = self.head_VH = self.half_NV = None
        if needs[0]:
            # rows that were dropped get a gradient of 0
            make = torch.empty_like if work.kept is None else torch.zeros_like
            self.hidden_NH = make(student_NH)
        if needs[1]:
            self.head_VH = torch.empty_like(head_VH, dtype=torch.float32)
            self.head_VH[work.vocab :].zero_()
            if work.rows == 0:
                self.head_VH.zero_()
        if any(needs) and _on_tensor_cores(student_NH, head_VH):
            self.half_NV = torch.empty(work.chunk_tokens, work.vocab, dtype=head_VH.dtype, device=head_VH.device)

    def add(self, grad_NV: Tensor, rows_NH: Tensor, head_VH: Tensor, chunk: slice) -> None:
        """Add the gradients that a chunk's logits send back through the head."""
        if self.half_NV is not None:
            grad_NV = self.half_NV[: len(grad_NV)].copy_(grad_NV)
        if self.hidden_NH is not None:
            pulled_NH = self._pull(grad_NV, head_VH)
            where = chunk if self.work.kept is None else self.work.kept[chunk]
            self.hidden_NH[where] = pulled_NH.to(self.hidden_NH.dtype)
        if self.head_VH is not None:
            self._add_head(self.head_VH[: self.work.vocab], grad_NV, rows_NH)

    def _pull(self, grad_NV: Tensor, head_VH: Tensor) -> Tensor:
        if self.half_NV is not None:
            return torch.mm(grad_NV, head_VH, out_dtype=torch.float32)
        pulled_NH = grad_NV.new_empty(len(grad_NV), head_VH.shape[1])
        for number, tile in enumerate(_tiles(head_VH)):
            pulled_NH.addmm_(grad_NV[:, tile], head_VH[tile].float(), beta=float(number > 0))
        return pulled_NH

    def _add_head(self, out_VH: Tensor, grad_NV: Tensor, rows_NH: Tensor) -> None:
        # beta 0 writes without reading, so the first chunk needs no zeros
        beta = float(self.written)
        if self.half_NV is not None:
            torch.addmm(out_VH, grad_NV.T, rows_NH, out_dtype=torch.float32, beta=beta, out=out_VH)
        else:
            out_VH.addmm_(grad_NV.T, rows_NH.float(), beta=beta)
        self.written = True


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student_NH: Tensor, head_VH: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        needs = (work.gradients and ctx.needs_input_grad[0], work.gradients and ctx.needs_input_grad[1])
        true_VH = head_VH[: work.vocab]
        gradients = _Gradients(student_NH, head_VH, work, needs)
        buffer_NV = torch.empty(work.chunk_tokens, work.vocab, dtype=torch.float32, device=student_NH.device)
        values_KN = torch.zeros(work.values, work.rows, dtype=torch.float32, device=student_NH.device)
        with torch.autocast(student_NH.device.type, enabled=False):
            for start in range(0, work.rows, max(1, work.chunk_tokens)):
                chunk = slice(start, min(start + work.chunk_tokens, work.rows))
                rows_NH = student_NH[chunk] if work.kept is None else student_NH[work.kept[chunk]]
                logits_NV = buffer_NV[: len(rows_NH)]
                project(rows_NH, true_VH, work.temperature, logits_NV)
                work.score(logits_NV, chunk, values_KN[:, chunk])
                gradients.add(logits_NV, rows_NH, true_VH, chunk)
        del buffer_NV
        if work.weights_N is not None:
            values_KN *= work.weights_N
        sums_K = values_KN.sum(dim=1, dtype=torch.float64).float()
        ctx.gradients = gradients.hidden_NH, None if gradients.head_VH is None else gradients.head_VH.to(head_VH.dtype)
        ctx.mark_non_differentiable(sums_K)
        return sums_K[0] * (1.0 - work.hard) + sums_K[1] * work.hard, sums_K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("this loss computes its gradient in the forward pass, so backward can run only once")
        # the reference is dropped, because autograd takes a tensor without a copy only if nothing else holds it
        grad_NH, grad_VH = ctx.gradients
        ctx.gradients = None
        for gradient in (grad_NH, grad_VH):
            if gradient is not None:
                gradient.mul_(grad_outputs[0])
        return grad_NH, grad_VH, None


def run(student_NH: Tensor, head_VH: Tensor, work: Work) -> LossSums:
    """Loss and sums over all kept rows. The loss can be differentiated once."""
    loss, sums_K = _Fused.apply(student_NH, head_VH, work)  # type: ignore[no-untyped-call]
    return LossSums(loss, *sums_K)
