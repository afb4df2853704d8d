"""Divergence from a teacher's distributions, computed from hidden states: exact, in the memory of two chunks of logits.

Shapes: N tokens, V vocabulary, H student's hidden size, G teacher's hidden size.

Logits exist one chunk of tokens at a time, in fp32: bf16 logits would spoil the gradient once student and teacher are
close. `chunks.py` has the pass over the tokens, `rows.py` the mathematics, `kernels.py` its implementations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from potstill.components.losses.chunks import LossSums, Work, chunk_rows, kept_rows, pick, project, run
from potstill.components.losses.kernels import Kernel, RowKernel, row_kernel
from potstill.components.losses.rows import RowSpec

__all__ = ["LossSums", "linear_divergence"]


def linear_divergence(
    student_NH: Tensor,
    head_VH: Tensor,
    labels_N: Tensor,
    *,
    teacher_NG: Tensor | None = None,
    teacher_head_VG: Tensor | None = None,
    objective: str = "forward_kl",
    parameters: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    hard_label_weight: float = 0.0,
    ignore_index: int = -100,
    weights_N: Tensor | None = None,
    student_softcap: float | None = None,
    teacher_softcap: float | None = None,
    vocab_size: int | None = None,
    kernel: Kernel = "auto",
    chunk_tokens: int | None = None,
) -> LossSums:
    """Sum over tokens of w ((1 - hard) T^2 D(p_T, q_T) + hard CE(labels)).

    The gradients of `student_NH` and `head_VH` are computed here; `backward` scales and returns them, once.

    Args:
        student_NH: the student's last hidden states at the positions that predict `labels_N`; fp32 or half precision.
        head_VH: the student's output embedding; logits are fp32 for any type of it. A frozen one gets no gradient.
        labels_N: the tokens that came next, int64. Rows of `ignore_index` have no loss and no gradient.
        teacher_NG: the teacher's last hidden states at the same positions; None trains on labels only.
        teacher_head_VG: the teacher's output embedding.
        objective: the divergence D, a key of `divergences.DIVERGENCES`.
        parameters: parameters of the divergence by name, for example beta of `jsd`; see there.
        temperature: T > 0, for both sides of the divergence.
        hard_label_weight: weight of the cross-entropy; taken as 1 without a teacher.
        weights_N: weight per token; a row of weight 0 is dropped like an ignored one.
        student_softcap: c, for a student with logits c tanh(logits / c).
        teacher_softcap: c of the teacher.
        vocab_size: number of tokens; rows of either head beyond it are padding. None: the heads have no padding.
        kernel: implementation of the row kernel: "torch", "compile", "triton" or "auto".
        chunk_tokens: maximum number of tokens per chunk; None: 256 to 1024 on a CPU (`loss_chunk_tokens`), and what
            fits, up to 4096, on a GPU.

    Returns:
        Sums in nats. Divide them once by the number of tokens of the global batch.

    Raises:
        ValueError: shapes or labels do not match, or a number is outside its range.
    """
    vocab, soft = true_vocab(head_VH, teacher_head_VG, vocab_size), teacher_NG is not None
    spec = RowSpec.of(
        objective, parameters, temperature=temperature if soft else 1.0, hard=hard_label_weight if soft else 1.0,
        student_softcap=student_softcap, teacher_softcap=teacher_softcap,
    )  # fmt: skip
    rows, kept = kept_rows(labels_N, weights_N, ignore_index, vocab, len(student_NH))
    labels_N, weights_N = pick(labels_N, weights_N, kept)
    widths = head_VH.shape[1], 0 if teacher_head_VG is None else teacher_head_VG.shape[1]
    step = chunk_rows(rows, vocab, student_NH.device, chunk_tokens, *widths)
    teacher = _teacher(teacher_NG, teacher_head_VG, len(student_NH), vocab, step)
    score = _DenseRows(row_kernel(kernel, spec, student_NH.device), spec, teacher, kept, labels_N, weights_N)
    work = Work(score, 2, rows, kept, weights_N, vocab, spec.temperature, spec.hard, step, torch.is_grad_enabled())
    return run(student_NH, head_VH, work)


class _Teacher(NamedTuple):
    hidden_NG: Tensor
    head_VG: Tensor
    buffer_NV: Tensor


def _teacher(
    hidden_NG: Tensor | None, head_VG: Tensor | None, tokens: int, vocab: int, chunk_tokens: int
) -> _Teacher | None:
    """The teacher without padding rows, and a buffer for its logits."""
    if hidden_NG is None or head_VG is None:
        if hidden_NG is not None or head_VG is not None:
            raise ValueError("teacher_NG and teacher_head_VG must be given together")
        return None
    if len(hidden_NG) != tokens:
        raise ValueError(f"{tokens} hidden states of the student, {len(hidden_NG)} of the teacher")
    buffer_NV = torch.empty(chunk_tokens, vocab, dtype=torch.float32, device=hidden_NG.device)
    return _Teacher(hidden_NG, head_VG[:vocab], buffer_NV)


@dataclass(frozen=True)
class _DenseRows:
    """Scores chunks of the student's logits against the teacher's. Labels and weights are those of the kept rows."""

    kernel: RowKernel
    spec: RowSpec
    teacher: _Teacher | None
    kept: Tensor | None
    labels_N: Tensor
    weights_N: Tensor | None

    @torch.no_grad()
    def __call__(self, logits_NV: Tensor, chunk: slice, values_KN: Tensor) -> None:
        teacher_NV = None
        if self.teacher is not None:
            teacher_NV = self.teacher.buffer_NV[: len(logits_NV)]
            rows_NG = self.teacher.hidden_NG[chunk if self.kept is None else self.kept[chunk]]
            project(rows_NG, self.teacher.head_VG, self.spec.temperature, teacher_NV)
        weights_N = None if self.weights_N is None else self.weights_N[chunk]
        self.kernel(logits_NV, teacher_NV, self.labels_N[chunk], weights_N, values_KN)


def true_vocab(head_VH: Tensor, teacher_head_VG: Tensor | None, vocab_size: int | None) -> int:
    """Number of rows of the heads that are tokens.

    Raises:
        ValueError: the heads differ in length and there is no `vocab_size`, or it is larger than a head.
    """
    lengths = {"student": len(head_VH)} | ({} if teacher_head_VG is None else {"teacher": len(teacher_head_VG)})
    listed = ", ".join(f"{who} {length}" for who, length in lengths.items())
    if vocab_size is None:
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"heads differ in vocabulary: {listed}. "
                "If both have the same tokens and differ only in padding, give the number of tokens as vocab_size."
            )
        return len(head_VH)
    if not 0 < vocab_size <= min(lengths.values()):
        raise ValueError(f"vocab_size is {vocab_size}, but the heads have rows: {listed}")
    return vocab_size
