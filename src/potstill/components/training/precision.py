"""The number format of a training: bf16 pays only where the device multiplies matrices in it.

A CPU without bf16 instructions converts each operand, and then products in bf16 take several times as long as in fp32.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Literal

import torch
from accelerate.utils import broadcast_object_list

from potstill.core.recipe import Schedule

__all__ = ["bf16_pays", "product_seconds", "with_known_precision"]


def product_seconds(device: torch.device, dtype: torch.dtype, side: int, rounds: int) -> float:
    """Seconds for one product of two square matrices: the best of `rounds`, after one that is not counted."""
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(rounds + 1):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # reading a number waits for the product
        best = min(best, time.perf_counter() - started)
    return best


@lru_cache
def bf16_pays(device: torch.device) -> bool:
    """Whether this device multiplies matrices faster in bf16 than in fp32, measured once per process."""
    side = 256 if device.type == "cpu" else 4096
    exact, half = (product_seconds(device, dtype, side, 5) for dtype in (torch.float32, torch.bfloat16))
    return half < exact


def with_known_precision(schedule: Schedule, device: torch.device) -> Schedule:
    """The settings with `fp32` or `bf16` in place of `auto`, the same for all processes."""
    if schedule.precision != "auto":
        return schedule
    choice: list[Literal["fp32", "bf16"]] = ["bf16" if bf16_pays(device) else "fp32"]
    broadcast_object_list(choice)
    return schedule.model_copy(update={"precision": choice[0]})
