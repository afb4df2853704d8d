"""The divergences that a student can learn by. To add one: its functions and its entry in `DIVERGENCES` here, and a
class of the same name in `potstill.core.recipe.objective`.

Shapes: N tokens (rows), V vocabulary. p is the teacher's distribution, q the student's, m = mix p + (1 - mix) q.

Sources: Agarwal et al. 2024, GKD (generalized JSD); Ko et al. 2024, DistiLLM (skew divergences); Ko et al. 2025,
DistiLLM-2 (no gradient through the q of the reverse mixture).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DIVERGENCES", "Block", "Divergence", "Terms"]

_TINY = 1e-37  # keeps a logarithm finite where both probabilities underflow; it is then multiplied by 0

Terms = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From log p, log q, p, q and mix: the divergence of each element, and its gradient with respect to q."""


@dataclass
class Block:
    """Some rows. A divergence writes its gradient with respect to z into `z_NV`, and may overwrite all but `q_NV`.

    z and t are the logits of student and teacher over the temperature; lse_N is their logsumexp, and q and p are their
    softmax; `spare_NV` is scratch memory.
    """

    z_NV: Tensor
    t_NV: Tensor
    q_NV: Tensor
    p_NV: Tensor
    spare_NV: Tensor
    lse_z_N: Tensor
    lse_t_N: Tensor


@dataclass(frozen=True)
class Divergence:
    """A divergence, for each kernel that can compute it.

    rows     overwrites a block with the gradient with respect to the logits, and returns the divergence of each row
    mix      the teacher's share of the mixture, as a function of the divergence's own parameters by name
    terms    the same as expressions, for torch.compile; None for forward KL, which `compiled` has itself
    triton   number of its case in `triton_rows._terms`; None: Triton does not have it
    """

    rows: Callable[[Block, float], Tensor]
    mix: Callable[..., float]
    terms: Terms | None
    triton: int | None = None

    @property
    def parameters(self) -> dict[str, float]:
        """Its own parameters with their defaults."""
        return {name: found.default for name, found in inspect.signature(self.mix).parameters.items()}


def _no_mixture() -> float:
    return 0.5


def _teacher_share_beta(beta: float = 0.5) -> float:
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta is {beta}; it must be in [0, 1]")
    return beta


def _teacher_share_alpha(alpha: float = 0.1) -> float:
    if not 0.0 <= alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; it must be in [0, 1)")
    return alpha


def _student_share_alpha(alpha: float = 0.1) -> float:
    return 1.0 - _teacher_share_alpha(alpha)


def _dot(a_NV: Tensor, b_NV: Tensor) -> Tensor:
    dot_N: Tensor = torch.linalg.vecdot(a_NV, b_NV)
    return dot_N


def _centre(g_NV: Tensor, b: Block, scale: float = 1.0) -> Tensor:
    """z = scale q (g - sum q g), which turns a gradient with respect to q into one with respect to logits.

    Returns:
        sum q g.
    """
    mean_N = _dot(b.q_NV, g_NV)
    g_NV.sub_(mean_N[:, None])
    torch.mul(b.q_NV, g_NV, out=b.z_NV)
    if scale != 1.0:
        b.z_NV.mul_(scale)
    return mean_N


def _log_mixture(b: Block, mix: float) -> tuple[Tensor, Tensor]:
    """m = mix p + (1 - mix) q, which overwrites p; and log m, in the spare block."""
    m_NV = torch.lerp(b.q_NV, b.p_NV, mix, out=b.p_NV).clamp_min_(_TINY)
    return m_NV, torch.log(m_NV, out=b.spare_NV)


def _forward_kl(b: Block, mix: float) -> Tensor:
    b.t_NV.sub_(b.z_NV)
    torch.sub(b.q_NV, b.p_NV, out=b.z_NV)
    return _dot(b.p_NV, b.t_NV) - b.lse_t_N + b.lse_z_N


def _reverse_kl(b: Block, mix: float) -> Tensor:
    # g = log q - log p, up to a constant per row, which centring removes
    return _centre(torch.sub(b.z_NV, b.t_NV, out=b.t_NV), b) - b.lse_z_N + b.lse_t_N


def _jsd(b: Block, mix: float) -> Tensor:
    """mix KL(p || m) + (1 - mix) KL(q || m); its gradient with respect to q is (1 - mix) log(q / m)."""
    torch.lerp(b.q_NV, b.p_NV, mix, out=b.spare_NV).clamp_min_(_TINY).log_()
    kl_p_N = _dot(b.p_NV, b.t_NV.sub_(b.spare_NV)) - b.lse_t_N
    torch.sub(b.z_NV, b.spare_NV, out=b.t_NV)
    kl_q_N = _centre(b.t_NV, b, 1.0 - mix) - b.lse_z_N
    return mix * kl_p_N + (1.0 - mix) * kl_q_N


def _skew_kl(b: Block, mix: float) -> Tensor:
    """KL(p || m); its gradient with respect to q is -(1 - mix) p / m."""
    torch.lerp(b.q_NV, b.p_NV, mix, out=b.spare_NV).clamp_min_(_TINY)
    torch.log(b.spare_NV, out=b.z_NV)
    divergence_N = _dot(b.p_NV, b.t_NV.sub_(b.z_NV)) - b.lse_t_N
    _centre(b.p_NV.div_(b.spare_NV), b, mix - 1.0)
    return divergence_N


def _skew_reverse_kl(b: Block, mix: float) -> Tensor:
    """KL(q || m); its gradient with respect to q is log(q / m) + 1 - (1 - mix) q / m."""
    m_NV, log_m_NV = _log_mixture(b, mix)
    torch.sub(b.z_NV, log_m_NV, out=b.t_NV)
    divergence_N = _dot(b.q_NV, b.t_NV) - b.lse_z_N
    _centre(b.t_NV.sub_(torch.div(b.q_NV, m_NV, out=m_NV), alpha=1.0 - mix), b)
    return divergence_N


def _skew_reverse_kl_detached(b: Block, mix: float) -> Tensor:
    """KL(q || m) with m a constant; its gradient with respect to q is log(q / m), up to a constant per row."""
    _, log_m_NV = _log_mixture(b, mix)
    return _centre(torch.sub(b.z_NV, log_m_NV, out=b.t_NV), b) - b.lse_z_N


def _total_variation(b: Block, mix: float) -> Tensor:
    torch.sub(b.q_NV, b.p_NV, out=b.t_NV)
    divergence_N = 0.5 * torch.abs(b.t_NV, out=b.spare_NV).sum(dim=1)
    _centre(b.t_NV.sign_(), b, 0.5)
    return divergence_N


# The same for torch.compile, as expressions of whole blocks.


def _mixture(p_NV: Tensor, q_NV: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    m_NV = torch.clamp_min(q_NV + mix * (p_NV - q_NV), _TINY)
    return m_NV, m_NV.log()


def _reverse_kl_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    return q * (lq - lp), lq - lp


def _jsd_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    _, lm = _mixture(p, q, mix)
    return mix * p * (lp - lm) + (1 - mix) * q * (lq - lm), (1 - mix) * (lq - lm)


def _skew_kl_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    m, lm = _mixture(p, q, mix)
    return p * (lp - lm), (mix - 1) * p / m


def _skew_reverse_kl_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    m, lm = _mixture(p, q, mix)
    return q * (lq - lm), (lq - lm) - (1 - mix) * q / m


def _skew_reverse_kl_detached_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    _, lm = _mixture(p, q, mix)
    return q * (lq - lm), lq - lm


def _total_variation_terms(lp: Tensor, lq: Tensor, p: Tensor, q: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    return 0.5 * (q - p).abs(), 0.5 * torch.sign(q - p)


DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": Divergence(_forward_kl, _no_mixture, None, 0),
    "reverse_kl": Divergence(_reverse_kl, _no_mixture, _reverse_kl_terms, 1),
    "jsd": Divergence(_jsd, _teacher_share_beta, _jsd_terms, 2),
    "skew_kl": Divergence(_skew_kl, _teacher_share_alpha, _skew_kl_terms, 3),
    "skew_reverse_kl": Divergence(_skew_reverse_kl, _student_share_alpha, _skew_reverse_kl_terms, 4),
    "total_variation": Divergence(_total_variation, _no_mixture, _total_variation_terms, 5),
    "skew_reverse_kl_detached": Divergence(
        _skew_reverse_kl_detached, _student_share_alpha, _skew_reverse_kl_detached_terms, 6
    ),
}
