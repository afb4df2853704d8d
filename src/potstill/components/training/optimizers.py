"""Optimizers and the learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from potstill.components.training.muon import Muon
from potstill.core.recipe import Schedule

__all__ = ["learning_rate", "make_optimizers"]


def learning_rate(schedule: Schedule, step: int, total: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then cosine decay to `min_lr_ratio` of the peak."""
    warmup = max(1, round(schedule.warmup_ratio * total))
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    final = schedule.min_lr_ratio
    return schedule.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizers(model: nn.Module, layers: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; or Muon for the matrices of `layers`, a part of `model`, and AdamW for the rest.

    Muon (Jordan, 2024) makes each update of a matrix nearly orthogonal. The size of its updates is matched to AdamW's
    (Liu et al., 2025, arXiv:2502.16982), so both use the same rate and the same decay. Norms and biases (1-D) are not
    decayed.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    matrices = (
        [p for p in layers.parameters() if p.requires_grad and p.ndim == 2] if schedule.optimizer == "muon" else []
    )
    taken = {id(p) for p in matrices}
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) not in taken], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        # fused: one pass over weights and moments, without a temporary tensor of an embedding's size
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, fused=True)
    ]
    if matrices:
        optimizers.append(Muon(matrices, lr=rate, weight_decay=decay))
    return optimizers
