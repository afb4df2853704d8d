"""Forward KL and cross-entropy from hidden states, with the gradient formed in the forward pass.

Shapes: N supervised tokens, V vocabulary, H student's hidden size, G teacher's hidden size.

Logits exist one chunk of tokens at a time, in fp32: rounding them to bf16 spoils the gradient as student and teacher
come
close. A tempered divergence is multiplied by T^2, so that its gradient keeps its size (Hinton et al., 2015, section
2.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LossSums", "linear_divergence"]

_CHUNK_TOKENS = 512


class LossSums(NamedTuple):
    """Sums over tokens, in nats. `loss` carries the gradient; the parts are for logs."""

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor


def _chunk(
    student_NV: Tensor, teacher_NV: Tensor | None, labels_N: Tensor, temperature: float, hard: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Divergence sum, cross-entropy sum and gradient with respect to the student's logits, of one chunk."""
    log_q_NV = torch.log_softmax(student_NV, dim=-1)
    cross_entropy = -log_q_NV.gather(1, labels_N[:, None]).sum()
    gradient_NV = torch.zeros_like(student_NV)
    if hard:
        gradient_NV = log_q_NV.exp().mul_(hard)
        gradient_NV.scatter_add_(1, labels_N[:, None], gradient_NV.new_full((len(labels_N), 1), -hard))
    if teacher_NV is None:
        return student_NV.new_zeros(()), cross_entropy, gradient_NV
    log_p_NV = torch.log_softmax(teacher_NV / temperature, dim=-1)
    if temperature != 1.0:
        log_q_NV = torch.log_softmax(student_NV / temperature, dim=-1)
    p_NV = log_p_NV.exp()
    divergence = (p_NV * (log_p_NV - log_q_NV)).sum() * temperature**2
    # d KL(p_T || q_T) / dz = (q_T - p_T) / T, and T^2 / T = T
    gradient_NV.add_(log_q_NV.exp_().sub_(p_NV), alpha=(1.0 - hard) * temperature)
    return divergence, cross_entropy, gradient_NV


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_NH: Tensor,
        head_VH: Tensor,
        teacher_NG: Tensor | None,
        teacher_head_VG: Tensor | None,
        labels_N: Tensor,
        temperature: float,
        hard: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        grad_NH = torch.empty_like(student_NH) if needs_hidden else None
        grad_VH = torch.zeros_like(head_VH, dtype=torch.float32) if needs_head else None
        sums = [torch.zeros((), dtype=torch.float32, device=student_NH.device) for _ in range(2)]
        for start in range(0, len(student_NH), _CHUNK_TOKENS):
            rows = slice(start, start + _CHUNK_TOKENS)
            logits_NV = student_NH[rows].float() @ head_VH.float().T
            teacher_NV = None
            if teacher_NG is not None and teacher_head_VG is not None:
                teacher_NV = teacher_NG[rows].float() @ teacher_head_VG.float().T
            divergence, cross_entropy, gradient_NV = _chunk(logits_NV, teacher_NV, labels_N[rows], temperature, hard)
            sums[0] += divergence
            sums[1] += cross_entropy
            if grad_NH is not None:
                grad_NH[rows] = gradient_NV @ head_VH.float()
            if grad_VH is not None:
                grad_VH.addmm_(gradient_NV.T, student_NH[rows].float())
        ctx.gradients = (grad_NH, None if grad_VH is None else grad_VH.to(head_VH.dtype))
        loss = sums[0] * (1.0 - hard) + sums[1] * hard
        ctx.mark_non_differentiable(sums[0], sums[1])
        return loss, sums[0], sums[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        scale = grad_outputs[0]
        grad_NH, grad_VH = ctx.gradients
        hidden = None if grad_NH is None else grad_NH * scale
        head = None if grad_VH is None else grad_VH * scale
        return hidden, head, None, None, None, None, None


def linear_divergence(
    student_NH: Tensor,
    head_VH: Tensor,
    labels_N: Tensor,
    *,
    teacher_NG: Tensor | None = None,
    teacher_head_VG: Tensor | None = None,
    temperature: float = 1.0,
    hard_label_share: float = 0.0,
) -> LossSums:
    """(1 - hard) T^2 KL(p_T || q_T) + hard CE(labels), summed over tokens.

    Args:
        student_NH: student's last hidden states at the positions that predict `labels_N`.
        head_VH: student's output embedding, cut to the true vocabulary.
        labels_N: the tokens that came next; int64, in [0, V).
        teacher_NG: teacher's last hidden states at the same positions; None trains on labels alone.
        teacher_head_VG: teacher's output embedding, cut to the same vocabulary.
        temperature: T > 0, on both sides.
        hard_label_share: weight of the cross-entropy; taken as 1 without a teacher.

    Returns:
        Sums in nats. Divide by the number of tokens of the whole global batch, once.
    """
    if (teacher_NG is None) != (teacher_head_VG is None):
        raise ValueError("teacher_NG and teacher_head_VG go together")
    if teacher_head_VG is not None and len(teacher_head_VG) != len(head_VH):
        raise ValueError(
            f"heads differ in vocabulary: student {len(head_VH)}, teacher {len(teacher_head_VG)}; cut both "
            "to the true one"
        )
    hard = hard_label_share if teacher_NG is not None else 1.0
    out = _LinearDivergence.apply(student_NH, head_VH, teacher_NG, teacher_head_VG, labels_N, temperature, hard)  # type: ignore[no-untyped-call]
    return LossSums(*out)
