"""`auto` is bf16 only where the device is faster in it."""

from __future__ import annotations

import pytest
import torch

from potstill.components.training import precision
from potstill.components.training.precision import bf16_pays, with_known_precision
from potstill.core.recipe import Schedule

CPU = torch.device("cpu")


@pytest.mark.parametrize(("slower", "chosen"), [(torch.bfloat16, "fp32"), (torch.float32, "bf16")])
def test_auto_is_the_faster_of_both(monkeypatch: pytest.MonkeyPatch, slower: torch.dtype, chosen: str) -> None:
    def seconds(device: torch.device, dtype: torch.dtype, side: int, rounds: int) -> float:
        return 2.0 if dtype == slower else 1.0

    bf16_pays.cache_clear()
    monkeypatch.setattr(precision, "product_seconds", seconds)
    assert with_known_precision(Schedule(precision="auto"), CPU).precision == chosen
    bf16_pays.cache_clear()


@pytest.mark.parametrize("stated", ["fp32", "bf16"])
def test_a_stated_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch, stated: str) -> None:
    monkeypatch.setattr(precision, "bf16_pays", None)
    schedule = Schedule.model_validate({"precision": stated})
    assert with_known_precision(schedule, CPU) is schedule
