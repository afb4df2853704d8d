"""The row kernel for CUDA, in Triton: one program per row, with two or three passes over it, and the gradient in place.

Shapes: N tokens (rows), V vocabulary.

Pass 1 computes the running maximum and sum of both softmaxes. Pass 2 sums the divergence and the mean that centres its
gradient; forward KL does not need it. Pass 3 writes. Only this file needs Triton. `TRITON_INTERPRET=1` runs it on a
CPU.
"""

# Triton compiles the source of these functions: their arguments are pointers and numbers without Python types
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from potstill.components.losses.divergences import DIVERGENCES
from potstill.components.losses.rows import RowSpec

__all__ = ["TritonRows"]

_MAX_BLOCK = 8192


@triton.jit
def _logits(ptr, columns, vocab, temperature, cap, CAPPED: tl.constexpr):
    """A block of a row; columns beyond the vocabulary are -1e30 instead of -inf, because inf - inf is NaN."""
    inside = columns < vocab
    z = tl.load(ptr + columns, mask=inside, other=0.0)
    slope = tl.full(z.shape, 1.0, tl.float32)
    if CAPPED:
        tanh = 2.0 * tl.sigmoid(2.0 * z * (temperature / cap)) - 1.0
        slope = 1.0 - tanh * tanh
        z = tanh * (cap / temperature)
    return tl.where(inside, z, -1e30), slope


@triton.jit
def _online(highest, total, z):
    """Running maximum, and running sum of exp(z - maximum)."""
    new = tl.maximum(highest, tl.max(z, 0))
    return new, total * tl.exp(highest - new) + tl.sum(tl.exp(z - new), 0)


@triton.jit
def _terms(lp, lq, mix, OBJECTIVE: tl.constexpr):
    """Divergence of each element, and its gradient with respect to q, up to a constant per row."""
    p = tl.exp(lp)
    q = tl.exp(lq)
    if OBJECTIVE == 0:
        return p * (lp - lq), tl.zeros(p.shape, tl.float32)
    elif OBJECTIVE == 1:
        return q * (lq - lp), lq - lp
    elif OBJECTIVE == 5:
        sign = tl.where(q > p, 1.0, 0.0) - tl.where(q < p, 1.0, 0.0)
        return 0.5 * tl.abs(q - p), 0.5 * sign
    else:
        m = tl.maximum(q + mix * (p - q), 1e-37)
        lm = tl.log(m)
        if OBJECTIVE == 2:
            return mix * p * (lp - lm) + (1.0 - mix) * q * (lq - lm), (1.0 - mix) * (lq - lm)
        elif OBJECTIVE == 3:
            return p * (lp - lm), (mix - 1.0) * p / m
        elif OBJECTIVE == 6:
            return q * (lq - lm), lq - lm
        else:
            return q * (lq - lm), (lq - lm) - (1.0 - mix) * q / m


@triton.jit
def _statistics(
    z_ptr, t_ptr, label, vocab, temperature, z_cap, t_cap, TEACHER: tl.constexpr, TEMPERED: tl.constexpr,
    Z_CAPPED: tl.constexpr, T_CAPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pass 1: logsumexp of z, of z at temperature 1 and of t, and the z of the label."""
    zm, zs, tm, ts, om, os = -1e30, 0.0, -1e30, 0.0, -1e30, 0.0
    at_label = 0.0
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z, _ = _logits(z_ptr, columns, vocab, temperature, z_cap, Z_CAPPED)
        zm, zs = _online(zm, zs, z)
        at_label += tl.sum(tl.where(columns == label, z, 0.0), 0)
        if TEMPERED:
            om, os = _online(om, os, z * temperature)
        if TEACHER:
            t, _ = _logits(t_ptr, columns, vocab, temperature, t_cap, T_CAPPED)
            tm, ts = _online(tm, ts, t)
    lse_z = zm + tl.log(zs)
    lse_1 = lse_z
    if TEMPERED:
        lse_1 = om + tl.log(os)
    lse_t = lse_z
    if TEACHER:
        lse_t = tm + tl.log(ts)
    return lse_z, lse_1, lse_t, at_label


@triton.jit
def _row(
    z_ptr, t_ptr, label_ptr, weight_ptr, divergence_ptr, cross_entropy_ptr,
    z_stride, t_stride, vocab, temperature, hard, mix, z_cap, t_cap,
    OBJECTIVE: tl.constexpr, TEACHER: tl.constexpr, TEMPERED: tl.constexpr, HARD: tl.constexpr,
    WEIGHTED: tl.constexpr, Z_CAPPED: tl.constexpr, T_CAPPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * z_stride
    t_ptr += row * t_stride
    label = tl.load(label_ptr + row)
    lse_z, lse_1, lse_t, at_label = _statistics(
        z_ptr, t_ptr, label, vocab, temperature, z_cap, t_cap, TEACHER, TEMPERED, Z_CAPPED, T_CAPPED, BLOCK
    )
    tl.store(cross_entropy_ptr + row, lse_1 - at_label * temperature)
    weight = 1.0
    if WEIGHTED:
        weight = tl.load(weight_ptr + row)

    divergence = 0.0
    mean = 0.0
    if TEACHER and OBJECTIVE != 0:
        for start in range(0, vocab, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            z, _ = _logits(z_ptr, columns, vocab, temperature, z_cap, Z_CAPPED)
            t, _ = _logits(t_ptr, columns, vocab, temperature, t_cap, T_CAPPED)
            term, g = _terms(t - lse_t, z - lse_z, mix, OBJECTIVE)
            inside = columns < vocab
            divergence += tl.sum(tl.where(inside, term, 0.0), 0)
            mean += tl.sum(tl.where(inside, tl.exp(z - lse_z) * g, 0.0), 0)

    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab
        z, slope = _logits(z_ptr, columns, vocab, temperature, z_cap, Z_CAPPED)
        q = tl.exp(z - lse_z)
        gradient = tl.zeros(z.shape, tl.float32)
        if TEACHER:
            t, _ = _logits(t_ptr, columns, vocab, temperature, t_cap, T_CAPPED)
            term, g = _terms(t - lse_t, z - lse_z, mix, OBJECTIVE)
            if OBJECTIVE == 0:
                divergence += tl.sum(tl.where(inside, term, 0.0), 0)
                gradient = q - tl.exp(t - lse_t)
            else:
                gradient = q * (g - mean)
            gradient *= (1.0 - hard) * temperature
        if HARD:
            hard_q = q
            if TEMPERED:
                hard_q = tl.exp(z * temperature - lse_1)
            gradient += hard * (hard_q - tl.where(columns == label, 1.0, 0.0))
        tl.store(z_ptr + columns, gradient * weight * slope, mask=inside)
    tl.store(divergence_ptr + row, divergence * temperature * temperature)


class TritonRows:
    """The Triton row kernel, with the interface of `chunks.Work`."""

    def __init__(self, spec: RowSpec, max_block: int = _MAX_BLOCK) -> None:
        self.spec, self.max_block = spec, max_block

    def __call__(
        self, z_NV: Tensor, t_NV: Tensor | None, labels_N: Tensor, weights_N: Tensor | None, values_KN: Tensor
    ) -> None:
        """Overwrite `z_NV` with the gradient, and fill in divergence and cross-entropy per row; see `chunks.Work`."""
        spec = self.spec
        block = min(self.max_block, triton.next_power_of_2(z_NV.shape[1]))
        divergence_N, cross_entropy_N = torch.empty_like(values_KN[:2])
        teacher_NV = z_NV if t_NV is None else t_NV
        # Triton needs a pointer here even if it is not read
        weight_N = divergence_N if weights_N is None else weights_N.contiguous()
        _row[(len(z_NV),)](
            z_NV, teacher_NV, labels_N.contiguous(), weight_N, divergence_N, cross_entropy_N,
            z_NV.stride(0), teacher_NV.stride(0), z_NV.shape[1],
            spec.temperature, spec.hard, spec.mix, spec.student_softcap or 1.0, spec.teacher_softcap or 1.0,
            OBJECTIVE=DIVERGENCES[spec.objective].triton, TEACHER=t_NV is not None, TEMPERED=spec.temperature != 1.0,
            HARD=spec.hard > 0, WEIGHTED=weights_N is not None, Z_CAPPED=spec.student_softcap is not None,
            T_CAPPED=spec.teacher_softcap is not None, BLOCK=block, num_warps=16 if block >= 8192 else 4,
        )  # fmt: skip
        values_KN[0], values_KN[1] = divergence_N, cross_entropy_N
