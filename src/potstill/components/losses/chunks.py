"""Chunks of tokens through an output head: logits in one reused buffer, gradients formed in the forward pass.

Legend: N tokens, H hidden size, V vocabulary, K values that are logged of each token.

The product of the head is most of the work, so everything else is arranged around it: rows that teach nothing are
dropped before it, the logits are overwritten with their gradient, and the gradient of a frozen head is never formed.
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
_CAST_ROWS = 4096  # rows of a half-precision head that are in fp32 at a time, on a CPU


class LossSums(NamedTuple):
    """Sums over tokens, in nats. `loss` carries the gradient; the parts are for logs, weights applied.

    The masses are of the stored tokens of sparse targets, and None without such: a student that drains the support of
    its targets shows in `student_mass`.
    """

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor
    student_mass: Tensor | None = None
    teacher_mass: Tensor | None = None


@dataclass(frozen=True)
class Work:
    """What one call of a fused loss does, but for the tensors that get a gradient.

    `score` takes the student's logits over the temperature (n, V), fp32, contiguous; the kept rows they belong to; and
    values (K, n) to fill: divergence (with T^2), cross-entropy, then what else is logged. It leaves in the logits the
    gradient of the loss with respect to the logits before any division by the temperature.
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
    """How many rows teach something, and which: None means all of them.

    Raises:
        ValueError: labels or weights do not fit the hidden states, or a label is no token of the vocabulary.
    """
    if labels_N.shape != (tokens,) or (weights_N is not None and weights_N.shape != (tokens,)):
        shape = tuple(labels_N.shape if weights_N is None else weights_N.shape)
        raise ValueError(f"{tokens} hidden states, but labels or weights of shape {shape}; one of each a token")
    keep_N = labels_N != ignore_index
    strange_N = keep_N & ((labels_N < 0) | (labels_N >= vocab))
    if weights_N is not None:
        keep_N = keep_N & (weights_N != 0)
    # one wait for the device, not three
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
    """Tokens of a chunk: as even as can be, since a small last chunk wastes the products; aligned where `wanted` is.

    Args:
        rows: tokens in all.
        vocab: size of the vocabulary.
        device: where the products are.
        wanted: most that are asked for; None leaves it to the device.
        student: its hidden size; `teacher` the teacher's, where its logits are computed too.
    """
    most = wanted or loss_chunk_tokens(vocab, student, teacher)
    if wanted is None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # two buffers of fp32 logits in a quarter of what is free
        most = max(128, min(_CUDA_TOKENS, free // 4 // (8 * vocab) // 128 * 128))
    if most < 1:
        raise ValueError(f"chunk_tokens is {wanted}; at least 1")
    chunks = max(1, -(-rows // most))
    return min(-(-rows // (chunks * ALIGNED_ROWS)) * ALIGNED_ROWS, most)


def project(rows_NH: Tensor, head_VH: Tensor, temperature: float, out_NV: Tensor) -> None:
    """out_NV = rows_NH @ head_VH.T / temperature in fp32, whatever the types of rows and head."""
    if _on_tensor_cores(rows_NH, head_VH):
        torch.mm(rows_NH, head_VH.T, out_dtype=torch.float32, out=out_NV)
        # a division folded into half-precision rows would round them again
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
    """The whole of an fp32 head; slices of another, so that it is never whole in fp32."""
    step = max(1, len(head_VH)) if head_VH.dtype == torch.float32 else _CAST_ROWS
    return [slice(start, start + step) for start in range(0, len(head_VH), step)]


class _Gradients:
    """Gradients that grow chunk by chunk; the head's is fp32 until the end. None where nobody asks."""

    def __init__(self, student_NH: Tensor, head_VH: Tensor, work: Work, needs: tuple[bool, bool]) -> None:
        self.work, self.written = work, False
        self.hidden_NH = self.head_VH = self.half_NV = None
        if needs[0]:
            # rows that were dropped get none
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
        """Pull the gradient of a chunk's logits back through the head."""
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
        # beta 0 writes without reading: the first chunk needs no zeros
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
            raise RuntimeError("this loss formed its gradient in the forward pass and gave it away: one backward only")
        # handed over, not kept: autograd takes a tensor that nobody else holds without a copy
        grad_NH, grad_VH = ctx.gradients
        ctx.gradients = None
        for gradient in (grad_NH, grad_VH):
            if gradient is not None:
                gradient.mul_(grad_outputs[0])
        return grad_NH, grad_VH, None


def run(student_NH: Tensor, head_VH: Tensor, work: Work) -> LossSums:
    """Loss and sums of all kept rows; the loss can be differentiated once."""
    loss, sums_K = _Fused.apply(student_NH, head_VH, work)  # type: ignore[no-untyped-call]
    return LossSums(loss, *sums_K)
