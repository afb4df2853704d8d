"""The row kernel in plain torch: the loss and its gradient, computed in place on the logits of a chunk.

Shapes: N tokens (rows), V vocabulary. p is the teacher's distribution, q the student's, both at temperature T.

Rows are processed in blocks that fit into the processor's cache, where a pass takes a quarter of the time that it takes
over a whole chunk. Source of the factor T^2: Hinton et al. 2015, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.components.losses.divergences import DIVERGENCES, Block

__all__ = ["RowSpec", "TorchRows", "block_rows", "finish_gradient", "softmax_lse"]

_BLOCK = {"cpu": 1 << 18, "other": 1 << 24}  # elements of a block; on a CPU per thread, which is 1 MB


@dataclass(frozen=True)
class RowSpec:
    """What a row kernel computes. `mix` is the teacher's share of the mixture m, for a divergence that has one."""

    objective: str = "forward_kl"
    mix: float = 0.5
    temperature: float = 1.0
    hard: float = 0.0
    student_softcap: float | None = None
    teacher_softcap: float | None = None

    @staticmethod
    def of(objective: str, parameters: Mapping[str, float] | None = None, **rest: float | None) -> RowSpec:
        """The spec of a divergence with its parameters. `jsd` with beta 0 or 1 is forward or reverse KL, as in GKD.

        Raises:
            ValueError: an objective or parameter is not known, or a number is outside its range; the message names it.
        """
        if objective not in DIVERGENCES:
            raise ValueError(f"no objective {objective!r}; there are {', '.join(DIVERGENCES)}")
        parameters = parameters or {}
        known = DIVERGENCES[objective].parameters
        if unknown := next((name for name in parameters if name not in known), None):
            raise ValueError(
                f"objective {objective!r} has no parameter {unknown!r}; it has {', '.join(known) or 'none'}"
            )
        mix = DIVERGENCES[objective].mix(**parameters)
        if objective == "jsd" and mix in (0.0, 1.0):
            objective = "reverse_kl" if mix else "forward_kl"
        spec = RowSpec(objective, mix, **rest)  # type: ignore[arg-type]
        if not spec.temperature > 0:
            raise ValueError(f"temperature is {spec.temperature}; it must be above 0")
        if not 0.0 <= spec.hard <= 1.0:
            raise ValueError(f"hard_label_weight is {spec.hard}; it must be in [0, 1]")
        for name, cap in (("student_softcap", spec.student_softcap), ("teacher_softcap", spec.teacher_softcap)):
            if cap is not None and not cap > 0:
                raise ValueError(f"{name} is {cap}; it must be above 0, or None")
        return spec


def block_rows(vocab: int, device: torch.device) -> int:
    """Number of rows of a block: the same number per thread, and at least one."""
    if device.type != "cpu":
        return max(1, _BLOCK["other"] // vocab)
    return torch.get_num_threads() * max(1, _BLOCK["cpu"] // vocab)


def softmax_lse(z_NV: Tensor, out_NV: Tensor) -> Tensor:
    """Write the softmax into `out_NV`, which may be z itself; returns the logsumexp (N,)."""
    highest_N = z_NV.amax(dim=1)
    torch.softmax(z_NV, dim=1, out=out_NV)
    # the probability of the likeliest token is exp(highest - lse)
    return highest_N - out_NV.amax(dim=1).log_()


class TorchRows:
    """The row kernel that needs no compiler. Scratch memory is allocated once and reused."""

    def __init__(self, spec: RowSpec) -> None:
        self.spec = spec
        self._scratch: list[Tensor] = []

    def __call__(
        self, z_NV: Tensor, t_NV: Tensor | None, labels_N: Tensor, weights_N: Tensor | None, values_KN: Tensor
    ) -> None:
        """Overwrite `z_NV` with the gradient, and fill in divergence and cross-entropy per row; see `chunks.Work`."""
        step = block_rows(z_NV.shape[1], z_NV.device)
        if not self._scratch:
            # q, p, the spare block; the slope of the soft cap; q at temperature 1
            needed = (True, True, True, self.spec.student_softcap is not None, self.spec.temperature != 1.0)
            shape = min(step, len(z_NV)), z_NV.shape[1]
            self._scratch = [z_NV.new_empty(shape if need else (0, 0)) for need in needed]
        for start in range(0, len(z_NV), step):
            rows = slice(start, start + step)
            self._block(
                z_NV[rows],
                None if t_NV is None else t_NV[rows],
                labels_N[rows, None],
                None if weights_N is None else weights_N[rows, None],
                values_KN[:, rows],
            )

    def _block(
        self, z_NV: Tensor, t_NV: Tensor | None, labels_N1: Tensor, weights_N1: Tensor | None, values_KN: Tensor
    ) -> None:
        spec = self.spec
        q_NV, p_NV, spare_NV, slope_NV, hard_q_NV = (scratch_NV[: len(z_NV)] for scratch_NV in self._scratch)
        if spec.student_softcap is not None:
            z_NV.mul_(spec.temperature / spec.student_softcap).tanh_()
            torch.mul(z_NV, z_NV, out=slope_NV).neg_().add_(1.0)
            z_NV.mul_(spec.student_softcap / spec.temperature)
        label_z_N1 = z_NV.gather(1, labels_N1) * spec.temperature
        lse_z_N = lse_1_N = softmax_lse(z_NV, q_NV)
        if spec.temperature == 1.0:
            hard_q_NV = q_NV
        else:
            lse_1_N = softmax_lse(torch.mul(z_NV, spec.temperature, out=hard_q_NV), hard_q_NV)
        values_KN[1] = lse_1_N - label_z_N1[:, 0]
        if t_NV is None:
            z_NV.zero_()
        else:
            if spec.teacher_softcap is not None:
                t_NV.mul_(spec.temperature / spec.teacher_softcap).tanh_()
                t_NV.mul_(spec.teacher_softcap / spec.temperature)
            lse_t_N = softmax_lse(t_NV, p_NV)
            block = Block(z_NV, t_NV, q_NV, p_NV, spare_NV, lse_z_N, lse_t_N)
            divergence_N = DIVERGENCES[spec.objective].rows(block, spec.mix)
            torch.mul(divergence_N, spec.temperature**2, out=values_KN[0])
        finish_gradient(z_NV, hard_q_NV, labels_N1, weights_N1, spec)
        if spec.student_softcap is not None:
            z_NV.mul_(slope_NV)


def finish_gradient(
    z_NV: Tensor, hard_q_NV: Tensor, labels_N1: Tensor, weights_N1: Tensor | None, spec: RowSpec
) -> None:
    """Turn the gradient of the divergence into that of the loss: its weight, T^2 / T, hard labels, token weights."""
    soft = (1.0 - spec.hard) * spec.temperature
    if soft != 1.0:
        z_NV.mul_(soft)
    if spec.hard:
        z_NV.add_(hard_q_NV, alpha=spec.hard)
        z_NV.scatter_add_(1, labels_N1, z_NV.new_full((len(z_NV), 1), -spec.hard))
    if weights_N1 is not None:
        z_NV.mul_(weights_N1)
