"""Muon with one batched product for all matrices of a shape.

A small model has many small matrices. On a CPU, a product of one of them costs several times its share of a batched
product, so torch's optimizer, which takes them one by one, can cost as much as the rest of a step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from potstill.components.training.precision import bf16_pays

__all__ = ["Muon", "orthogonalized"]

# Larger matrices fill the cores one by one, and a batch of them would cost memory.
_BATCH_ELEMENTS = 1 << 22


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`: the same updates up to rounding, and the same state."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrices in _batches([p for p in group["params"] if p.grad is not None]):
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices that have one shape when they lie on their longer side."""
        grads = [p.grad for p in matrices if p.grad is not None]
        for p, grad in zip(matrices, grads, strict=True):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(grad)
        momenta = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
        dtype = torch.bfloat16 if bf16_pays(grads[0].device) else torch.float32
        wide = torch.stack([_lying(update).to(dtype) for update in updates])
        wide = orthogonalized(wide, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * math.sqrt(wide.shape[-1])
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        turned = [update.mT if _stands(p) else update for p, update in zip(matrices, wide, strict=True)]
        for p, update in zip(matrices, turned, strict=True):
            p.add_(update, alpha=-rate)


def orthogonalized(matrices_BMN: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The nearly orthogonal factor of each matrix (B, M, N) with M <= N, by Newton-Schulz iteration in its own type.

    Source: Jordan, 2024, https://kellerjordan.github.io/posts/muon/.
    """
    a, b, c = coefficients
    x_BMN: Tensor = matrices_BMN / matrices_BMN.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram_BMM = x_BMN @ x_BMN.mT
        polynomial_BMM = torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c)
        x_BMN = torch.baddbmm(x_BMN, polynomial_BMM, x_BMN, beta=a)
    return x_BMN


def _stands(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _lying(matrix: Tensor) -> Tensor:
    return matrix.mT if _stands(matrix) else matrix


def _batches(matrices: list[Tensor]) -> Iterator[list[Tensor]]:
    """Matrices of one device and one shape, up to turning them, in batches of limited size."""
    alike: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for p in matrices:
        alike[(p.device, p.dtype, *sorted(p.shape))].append(p)
    for group in alike.values():
        size = max(1, _BATCH_ELEMENTS // group[0].numel())
        yield from (group[start : start + size] for start in range(0, len(group), size))
