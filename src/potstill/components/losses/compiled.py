"""The row kernel as one expression for torch.compile, which fuses the operations that `rows.py` fuses by hand.

Shapes: N tokens (rows), V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from potstill.components.losses.divergences import DIVERGENCES, Terms
from potstill.components.losses.rows import RowSpec, TorchRows

__all__ = ["CompiledRows"]

_VARIANTS = 64  # combinations of objective and flags that a process may compile; torch's default limit is 8


def _log_softmax(z_NV: Tensor) -> Tensor:
    z_NV = z_NV - z_NV.amax(dim=1, keepdim=True)
    return z_NV - z_NV.exp().sum(dim=1, keepdim=True).log()


def _rows(
    z_NV: Tensor,
    t_NV: Tensor | None,
    labels_N: Tensor,
    weights_N: Tensor | None,
    numbers: Tensor,
    terms: Terms | None,
    flags: tuple[bool, bool, bool, bool],
) -> Tensor:
    """The definition of a row kernel; returns divergence and cross-entropy, (2, N).

    The numbers are a tensor, so that another temperature needs no new compilation.
    """
    tempered, hard_labels, student_capped, teacher_capped = flags
    temperature, hard, mix, student_cap, teacher_cap = numbers.unbind()
    raw_NV, slope_NV = z_NV, None
    if student_capped:
        tanh_NV = torch.tanh(z_NV * (temperature / student_cap))
        raw_NV, slope_NV = tanh_NV * (student_cap / temperature), 1 - tanh_NV * tanh_NV
    lq_NV = _log_softmax(raw_NV)
    hard_lq_NV = _log_softmax(raw_NV * temperature) if tempered else lq_NV
    cross_entropy_N = -hard_lq_NV.gather(1, labels_N[:, None])[:, 0]
    divergence_N = torch.zeros_like(cross_entropy_N)
    gradient_NV = torch.zeros_like(lq_NV)
    if t_NV is not None:
        if teacher_capped:
            t_NV = torch.tanh(t_NV * (temperature / teacher_cap)) * (teacher_cap / temperature)
        lp_NV = _log_softmax(t_NV)
        p_NV, q_NV = lp_NV.exp(), lq_NV.exp()
        if terms is None:  # forward KL, whose gradient -p / q is q - p after centring
            divergence_N = (p_NV * (lp_NV - lq_NV)).sum(dim=1)
            gradient_NV = q_NV - p_NV
        else:
            terms_NV, g_NV = terms(lp_NV, lq_NV, p_NV, q_NV, mix)
            divergence_N = terms_NV.sum(dim=1)
            gradient_NV = q_NV * (g_NV - (q_NV * g_NV).sum(dim=1, keepdim=True))
        divergence_N = divergence_N * temperature**2
        gradient_NV = gradient_NV * ((1 - hard) * temperature)
    if hard_labels:
        columns_V = torch.arange(z_NV.shape[1], device=z_NV.device)
        gradient_NV = gradient_NV + hard * (hard_lq_NV.exp() - (columns_V == labels_N[:, None]).float())
    if weights_N is not None:
        gradient_NV = gradient_NV * weights_N[:, None]
    z_NV.copy_(gradient_NV if slope_NV is None else gradient_NV * slope_NV)
    return torch.stack([divergence_N, cross_entropy_N])


class CompiledRows:
    """A row kernel that is compiled on the first chunk, once per process and objective. If the compiler does not work,
    it warns and runs plain torch."""

    _compiled: Callable[..., Tensor] | None = None
    _broken = False

    def __init__(self, spec: RowSpec) -> None:
        self._terms, self._plain = DIVERGENCES[spec.objective].terms, TorchRows(spec)
        caps = spec.student_softcap, spec.teacher_softcap
        self._flags = (spec.temperature != 1.0, spec.hard > 0, caps[0] is not None, caps[1] is not None)
        self._numbers = torch.tensor([spec.temperature, spec.hard, spec.mix, *(cap or 1.0 for cap in caps)])

    def __call__(
        self, z_NV: Tensor, t_NV: Tensor | None, labels_N: Tensor, weights_N: Tensor | None, values_KN: Tensor
    ) -> None:
        """Overwrite `z_NV` with the gradient, and fill in divergence and cross-entropy per row; see `chunks.Work`."""
        if CompiledRows._broken:
            return self._plain(z_NV, t_NV, labels_N, weights_N, values_KN)
        if CompiledRows._compiled is None:
            CompiledRows._compiled = torch.compile(_rows, fullgraph=True)
        self._numbers = self._numbers.to(z_NV.device)
        # chunks of another length must not start another compilation
        for tensor in (z_NV, t_NV, labels_N, weights_N):
            if tensor is not None:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        try:
            with torch._dynamo.config.patch(recompile_limit=_VARIANTS):
                found_KN = CompiledRows._compiled(
                    z_NV, t_NV, labels_N, weights_N, self._numbers, self._terms, self._flags
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # compilation fails before the logits are changed
            CompiledRows._broken = True
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f'kernel "compile": torch.compile failed ({reason}); the losses run in plain torch, which is slower. '
                'Install a C++ compiler, or set kernel "torch".',
                RuntimeWarning,
                stacklevel=2,
            )
            return self._plain(z_NV, t_NV, labels_N, weights_N, values_KN)
        # copied outside the compiled function, because the stride of the values changes from call to call
        values_KN.copy_(found_KN)
        return None
