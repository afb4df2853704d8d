"""Every weight belongs to one optimizer, with the scheduled learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training import muon
from potstill.components.training.muon import Muon
from potstill.components.training.optimizers import learning_rate, make_optimizers
from potstill.core.recipe import Schedule


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_learning_rate_warms_up_and_decays(final: float) -> None:
    schedule = Schedule(learning_rate=1.0, warmup_ratio=0.1, min_lr_ratio=final)
    rates = [learning_rate(schedule, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9]) == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[55] == pytest.approx((1 + final) / 2)  # half-way down a cosine
    assert rates[100] == pytest.approx(final)


def test_muon_has_the_matrices_of_the_layers_and_nothing_else(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    adamw, of_layers = make_optimizers(model, model.base_model.layers, Schedule(optimizer="muon", weight_decay=0.3))
    name_of = {id(p): name for name, p in model.named_parameters()}
    rest, matrices = (
        {name_of[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (adamw, of_layers)
    )
    assert len(rest) + len(matrices) == len(name_of)
    assert all("_proj." in name for name in matrices)
    assert set(matrices.values()) == {0.3}
    assert {name: decay for name, decay in rest.items() if "norm" not in name} == {"model.embed_tokens.weight": 0.3}
    assert {decay for name, decay in rest.items() if "norm" in name} == {0.0}
    assert len(make_optimizers(model, model.base_model.layers, Schedule())) == 1


def test_a_step_of_muon_is_orthogonal_and_as_large_as_one_of_adamw(tiny_model: Path) -> None:
    rate, sizes = 0.01, {}
    for name in ("adamw", "muon"):
        model = load_causal_lm(tiny_model)
        weight = model.base_model.layers[1].mlp.up_proj.weight
        before = weight.detach().clone()
        *_, optimizer = make_optimizers(
            model, model.base_model.layers, Schedule(optimizer=name, learning_rate=rate, weight_decay=0)
        )
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        update = (weight.detach() - before) / rate
        sizes[name] = float(update.square().mean().sqrt())
    # AdamW's first step is the sign of the gradient; 0.2 is its size in the long run (arXiv:2502.16982, section 2.2)
    assert sizes["adamw"] == pytest.approx(1.0, rel=1e-3)
    assert 0.2 * 0.6 < sizes["muon"] < 0.2 * 1.2
    spread = torch.linalg.svdvals(update)
    assert float(spread.max() / spread.min()) < 2.2


def test_batched_muon_makes_the_updates_of_torch() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(8, 8), (4, 8), (16, 8), (8, 16), (8, 4), (8, 8), (16, 8)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.01, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        # products in bfloat16, in another order
        assert float((one - other).detach().norm() / (other - before).detach().norm()) < 0.02
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert [value.keys() for value in states[0]["state"].values()] == [
        value.keys() for value in states[1]["state"].values()
    ]


def test_muon_leaves_matrices_without_a_gradient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "_BATCH_ELEMENTS", 100)  # two batches of one shape
    weights = [torch.nn.Parameter(torch.ones(8, 8) * number) for number in range(1, 5)]
    for weight in weights[1:]:
        weight.grad = torch.eye(8)
    Muon(weights, lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weights[0], torch.ones(8, 8))
    steps = [
        float((before - weight).detach().diagonal().mean())
        for before, weight in zip(range(2, 5), weights[1:], strict=True)
    ]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-4)
    assert 0.1 * 0.2 * 8**0.5 * 0.6 < steps[0] < 0.1 * 0.2 * 8**0.5 * 1.2
