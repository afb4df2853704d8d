"""Hidden-state losses: layer maps, distances against their definitions in float64, projections, the balance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from potstill.components.losses.hidden import (
    DISTANCES,
    Balance,
    Distance,
    HiddenLoss,
    cut_layers,
    linear_cka,
    similar_layers,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers(count: int, size: int, n: int = 20, seed: int = 0) -> list[Tensor]:
    return [randn(n, size, seed=100 * seed + layer) for layer in range(count)]


def definition(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Of each token, in float64, from the formula."""
    a, b = a.double(), b.double()
    if distance == "mse":
        return ((a - b) ** 2).sum(-1) / a.shape[-1]
    return 1 - (a * b).sum(-1) / ((a * a).sum(-1).sqrt() * (b * b).sum(-1).sqrt())


def test_a_cut_students_layers_learn_what_the_next_one_was_made_for() -> None:
    assert cut_layers([0, 4, 8, 12], 13) == (3, 7, 11, 12)
    assert cut_layers([0, 1, 5], 7) == (0, 4, 6)
    assert cut_layers([0], 7) == (6,)
    assert cut_layers(range(4), 4) == (0, 1, 2, 3)  # nothing was cut: each from itself
    for kept in ([], [2, 1], [1, 1], [0, 7], [-1, 2]):
        with pytest.raises(ValueError, match="of 7: they must exist"):
            cut_layers(kept, 7)


def test_cka_golden_and_definition() -> None:
    a, b = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    assert linear_cka(a, a) == pytest.approx(1.0)
    assert linear_cka(a, b) == pytest.approx(0.0)
    # in one dimension it is the squared correlation
    assert linear_cka(a, torch.tensor([[0.0], [1.0], [1.0]])) == pytest.approx(0.75)
    x, y = randn(30, 4, seed=1).double(), randn(30, 7, seed=2).double()
    centre = torch.eye(30, dtype=torch.float64) - 1 / 30
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    want = (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert linear_cka(x.float(), y.float()) == pytest.approx(float(want), rel=1e-5)
    assert linear_cka(torch.ones(5, 2), randn(5, 2)) == 0.0
    with pytest.raises(ValueError, match="20 and 19 tokens"):
        linear_cka(randn(20, 2), randn(19, 2))


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_cka_is_blind_to_rotation_scale_and_shift(seed: int, scale: float) -> None:
    a, b = randn(12, 4, seed=seed), randn(12, 5, seed=seed + 1)
    turn = torch.linalg.qr(randn(4, 4, seed=seed + 2))[0]
    value = linear_cka(a, b)
    assert 0.0 <= value <= 1.0
    assert linear_cka(scale * a @ turn + 3.0, b) == pytest.approx(value, abs=1e-4)
    assert linear_cka(b, a) == pytest.approx(value, abs=1e-9)


def test_similar_layers_find_where_the_student_was_cut_from() -> None:
    teacher = layers(7, 6, n=60)
    turn = torch.linalg.qr(randn(6, 6, seed=9))[0]
    assert similar_layers([teacher[layer] @ turn for layer in (1, 2, 5)], teacher) == (1, 2, 5)
    # widths may differ: the first 5 of 6 dimensions are most of the layer
    assert similar_layers([teacher[layer][:, :5] for layer in (0, 3, 4)], teacher) == (0, 3, 4)
    # more layers than the teacher has: the same one again
    assert similar_layers([teacher[0], teacher[0], teacher[1]], teacher[:2]) == (0, 0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        similar_layers([], teacher)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 100))
def test_similar_layers_are_the_best_in_order(student: int, teacher: int, seed: int) -> None:
    own, taught = layers(student, 3, seed=seed), layers(teacher, 4, seed=seed + 1)
    maps = (
        itertools.combinations(range(teacher), student)
        if student <= teacher
        else itertools.combinations_with_replacement(range(teacher), student)
    )

    def total(chosen: tuple[int, ...]) -> float:
        return sum(linear_cka(own[i], taught[layer]) for i, layer in enumerate(chosen))

    best = max(map(total, maps))
    chosen = similar_layers(own, taught)
    assert total(chosen) == pytest.approx(best)
    assert sorted(chosen) == list(chosen) and (student > teacher or len(set(chosen)) == student)


def test_golden_distances() -> None:
    student, teacher = [torch.tensor([[3.0, 4.0], [1.0, 0.0]])], [torch.tensor([[4.0, 3.0], [0.0, 2.0]])]
    cosine = HiddenLoss([0], 2, 2, "cosine")(student, teacher)
    assert cosine.loss.item() == pytest.approx((1 - 24 / 25) + 1)
    mse = HiddenLoss([0], 2, 2, "mse")(student, teacher)
    assert mse.loss.item() == pytest.approx(1.0 + 2.5)
    weighted = HiddenLoss([0], 2, 2, "mse")(student, teacher, torch.tensor([2.0, 0.0]))
    assert weighted.loss.item() == pytest.approx(2.0)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("widths", [(6, 6), (4, 6), (6, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_against_the_definition(distance: Distance, widths: tuple[int, int], weighted: bool) -> None:
    torch.manual_seed(0)
    loss = HiddenLoss([1, -1, 2], *widths, distance)
    assert len(loss.projections) == (0 if widths[0] == widths[1] else 2)
    student, teacher = [x.requires_grad_() for x in layers(3, widths[0])], layers(3, widths[1], seed=1)
    weights = torch.rand(20, generator=torch.Generator().manual_seed(3)).mul(2) if weighted else None
    if weights is not None:
        weights[::4] = 0
    got = loss(student, teacher, weights)
    got.loss.backward()

    w = torch.ones(20) if weights is None else weights
    doubles = [x.detach().double().requires_grad_() for x in student]
    matrices = [p.weight.detach().double().requires_grad_() for p in loss.projections]
    want = []
    for number, (own, taught) in enumerate([(0, 1), (2, 2)]):
        states = doubles[own] @ matrices[number].T if matrices else doubles[own]
        want.append((w.double() * definition(states, teacher[taught], distance)).sum())
    (sum(want) / 2).backward()  # type: ignore[union-attr]

    assert got.loss.item() == pytest.approx(sum(x.item() for x in want) / 2, rel=1e-5)
    assert got.layers_L.tolist() == pytest.approx([x.item() for x in want], rel=1e-5)
    assert student[1].grad is None  # left free
    for mine, theirs in [*zip(student, doubles, strict=True), *zip(loss.parameters(), matrices, strict=True)]:
        if theirs.grad is not None:
            assert mine.grad is not None
            assert float((mine.grad.double() - theirs.grad).norm() / theirs.grad.norm()) < 2e-5


@pytest.mark.parametrize("distance", DISTANCES)
def test_finite_differences(distance: Distance) -> None:
    torch.manual_seed(0)
    loss = HiddenLoss([0, 1], 3, 4, distance).double()
    teacher = [x.double() for x in layers(2, 4, n=3, seed=1)]
    states = [x.double().requires_grad_() for x in layers(2, 3, n=3)]
    weights = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: loss(x, teacher, weights).loss, states)


@given(st.integers(0, 500), st.sampled_from(sorted(DISTANCES)), st.floats(0.1, 10))
def test_not_negative_and_zero_at_equality(seed: int, distance: Distance, scale: float) -> None:
    student, teacher = layers(2, 4, seed=seed), layers(2, 4, seed=seed + 1)
    loss = HiddenLoss([0, 1], 4, 4, distance)
    assert loss(student, teacher).loss >= 0
    assert loss(teacher, teacher).loss.item() == pytest.approx(0.0, abs=1e-5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    permuted = loss([x[order] for x in student], [x[order] for x in teacher]).loss
    assert permuted.item() == pytest.approx(loss(student, teacher).loss.item(), rel=1e-4)
    if distance == "cosine":
        scaled = loss([scale * x for x in student], teacher).loss
        assert scaled.item() == pytest.approx(loss(student, teacher).loss.item(), rel=1e-4)


def test_halves_of_a_batch_sum_to_the_batch() -> None:
    loss = HiddenLoss([0], 5, 5, "mse")
    student, teacher = layers(1, 5), layers(1, 5, seed=1)
    parts = [loss([student[0][rows]], [teacher[0][rows]]).loss for rows in (slice(0, 7), slice(7, 20))]
    assert sum(x.item() for x in parts) == pytest.approx(loss(student, teacher).loss.item(), rel=1e-6)
    batch = [x.view(4, 5, 5) for x in (*student, *teacher)]
    shaped = loss(batch[:1], batch[1:], torch.ones(4, 5)).loss
    assert shaped.item() == pytest.approx(loss(student, teacher).loss.item(), rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_dropped_tokens_may_hold_anything(distance: Distance) -> None:
    student, teacher = randn(4, 3).requires_grad_(), randn(4, 3, seed=1)
    teacher[2] = torch.nan
    got = HiddenLoss([0], 3, 3, distance)([student], [teacher], torch.tensor([1.0, 1.0, 0.0, 1.0])).loss
    got.backward()
    assert student.grad is not None
    assert math.isfinite(got.item()) and bool(student.grad.isfinite().all()) and not student.grad[2].any()
    nothing = HiddenLoss([0], 3, 3, distance)([student], [teacher], torch.zeros(4)).loss
    assert nothing.item() == 0.0


def test_half_precision_is_summed_in_single() -> None:
    student, teacher = 300 * randn(8, 64), 300 * randn(8, 64, seed=1)
    loss = HiddenLoss([0], 64, 64, "mse")
    halves = [student.half()], [teacher.half()]
    want = definition(*(x[0] for x in halves), "mse").sum()
    assert loss(*halves).loss.item() == pytest.approx(float(want), rel=1e-5)  # 180,000 is beyond fp16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss([student], [teacher]).loss.dtype == torch.float32


@pytest.mark.parametrize("distance", DISTANCES)
def test_projections_learn(distance: Distance) -> None:
    torch.manual_seed(0)
    student = layers(1, 8, n=40)
    teacher = [student[0] @ randn(8, 6, seed=5)]
    loss = HiddenLoss([0], 8, 6, distance)
    start = loss(student, teacher).loss.item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(student, teacher).loss.backward()
        optimizer.step()
    assert loss(student, teacher).loss.item() < 0.05 * start


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no distance 'l1'"):
        HiddenLoss([0], 2, 2, "l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer map"):
        HiddenLoss([-1, -1], 2, 2, "mse")
    with pytest.raises(ValueError, match="hidden sizes 0 and 2"):
        HiddenLoss([0], 0, 2, "mse")
    loss = HiddenLoss([0, 3], 2, 2, "mse")
    with pytest.raises(ValueError, match="student layer 1 and teacher layer 3"):
        loss(layers(2, 2), layers(3, 2))
    with pytest.raises(ValueError, match="same tokens"):
        loss(layers(2, 2), layers(4, 2, n=19))
    with pytest.raises(ValueError, match="hidden sizes 2 and 2"):
        loss(layers(2, 3), layers(4, 2))
    with pytest.raises(ValueError, match="weights"):
        loss(layers(2, 2), layers(4, 2), torch.ones(19))


def test_balance_makes_the_losses_as_large() -> None:
    balance = Balance(share=0.5, momentum=0.0)
    assert balance.weight(2.0, 4.0) * 4.0 == pytest.approx(0.5 * 2.0)
    assert Balance().weight(0.0, 3.0) == 0.0
    assert Balance().weight(3.0, 0.0) == 0.0
    assert Balance(limit=7.0).weight(3.0, 1e-9) == 7.0
    # smoothed from the first step on, with no start to forget: golden
    balance = Balance(momentum=0.5)
    assert [balance.weight(*x) for x in [(1.0, 1.0), (3.0, 1.0), (3.0, 2.0)]] == pytest.approx([1.0, 7 / 3, 19 / 11])
    with pytest.raises(ValueError, match="momentum"):
        Balance(momentum=1.0)
    with pytest.raises(ValueError, match="finite"):
        Balance().weight(math.nan, 1.0)


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)), min_size=2, max_size=8), st.floats(0.1, 100))
def test_balance_resumes_exactly_and_does_not_see_units(steps: list[tuple[float, float]], unit: float) -> None:
    whole, first, scaled = Balance(), Balance(), Balance()
    weights = [whole.weight(*x) for x in steps]
    assert [scaled.weight(a * unit, b * unit) for a, b in steps] == pytest.approx(weights)
    for x in steps[:1]:
        first.weight(*x)
    second = Balance()
    second.load_state_dict(first.state_dict())
    assert [second.weight(*x) for x in steps[1:]] == weights[1:]
    assert second == whole
