"""Operations are those that torch's counter counts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.throughput import Size, matmul_rate, pass_flops


def test_a_pass_is_what_the_flop_counter_counts(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    model.set_attn_implementation("eager")
    length = 40
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(3, 3 + length)[None])
    size = Size.of(model)
    # the counter sees whole squares where causal attention needs a triangle
    hidden_by_mask = 4 * size.queries * (length**2 - length * (length + 1) // 2)
    assert counter.get_total_flops() == pass_flops(size, [length], length) + hidden_by_mask
    assert pass_flops(size, [7, 9], 3) + pass_flops(size, [5], 1) == pass_flops(size, [5, 7, 9], 4)


def test_a_machine_has_a_rate() -> None:
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    assert 1e8 < rate < 1e15
    assert matmul_rate(torch.device("cpu"), torch.float32) == rate
