"""Every objective against its definition in float64, and what must hold for any divergence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.losses.oracle import OBJECTIVES, error, gradients, problem
from components.losses.oracle import loss as oracle_loss
from potstill.components.losses.divergence import LossSums, linear_divergence
from potstill.components.losses.divergences import DIVERGENCES

N, V = 21, 23
WEIGHTS = torch.rand(N, generator=torch.Generator().manual_seed(5)) * 2
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ignored rows": {"ignored": True},
    "padded": {"pad": 3, "vocab_size": V},
    "weights": {"weights_N": WEIGHTS},
    "soft caps": {"student_softcap": 3.0, "teacher_softcap": 4.0},
    "all": {"ignored": True, "pad": 3, "vocab_size": V, "weights_N": WEIGHTS, "student_softcap": 5.0},
}


def ours(x: dict[str, Tensor], **options: Any) -> LossSums:
    """The loss on a problem; beta and alpha are parameters of its divergence."""
    options["parameters"] = {name: options.pop(name) for name in ("beta", "alpha") if name in options}
    return linear_divergence(
        x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"],
        **({"chunk_tokens": 8} | options),
    )  # fmt: skip


def check(options: dict[str, Any], kernel: str = "torch", n: int = N, v: int = V, tolerance: float = 2e-5) -> None:
    """Loss, its parts and both gradients against the oracle."""
    options = dict(options)
    x = problem(n, v, pad=options.pop("pad", 0))
    if options.pop("ignored", False):
        x["labels"][::3] = -100
    want, want_gradients = gradients(x, lambda y: oracle_loss(y, **options))
    got, got_gradients = gradients(x, lambda y: ours(y, kernel=kernel, **options))
    for name in ("loss", "divergence", "cross_entropy"):
        assert getattr(got, name).item() == pytest.approx(want[name].item(), rel=1e-5, abs=1e-4), name
    for name in ("student", "head"):
        assert error(got_gradients[name], want_gradients[name]) < tolerance, name


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("hard", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradients_equal_float64_autograd(objective: str, temperature: float, hard: float, extra: str) -> None:
    check({"objective": objective, "temperature": temperature, "hard_label_weight": hard, **EXTRAS[extra]})


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9, 1.0])
def test_generalized_jsd_has_gkds_ends(beta: float) -> None:
    # near an end the gradient is small, and its rounding in fp32 depends on the number of threads
    check({"objective": "jsd", "beta": beta}, tolerance=4e-5)


@pytest.mark.parametrize(("objective", "alpha"), [*itertools.product(["skew_kl", "skew_reverse_kl"], [0.0, 0.5])])
def test_skew(objective: str, alpha: float) -> None:
    check({"objective": objective, "alpha": alpha, "temperature": 0.5})


@pytest.mark.parametrize("n", [1, 7, 8, 9, 30])
def test_ragged_chunks(n: int) -> None:
    check({"hard_label_weight": 1.0}, n=n)
    check({}, n=n)


def test_many_blocks_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.components.losses.rows._BLOCK", {"cpu": 2 * V})
    for objective in OBJECTIVES:
        check({"objective": objective, "temperature": 2.0, "hard_label_weight": 0.3, **EXTRAS["all"]})


def test_every_objective_is_covered() -> None:
    assert set(OBJECTIVES) == set(DIVERGENCES)


def test_the_gradient_follows_what_comes_after_the_loss() -> None:
    x = problem(5, 9)
    _, once = gradients(x, ours)
    x["student"].requires_grad_()
    (ours(x).loss * 3.0).backward()
    assert x["student"].grad is not None
    assert torch.allclose(x["student"].grad.double(), 3 * once["student"])


def test_a_second_backward_is_refused() -> None:
    x = problem(4, 9)
    x["student"].requires_grad_()
    loss = ours(x).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward can run only once"):
        loss.backward()


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o != "total_variation"])
def test_gradient_stays_exact_where_student_is_close_to_teacher(objective: str) -> None:
    x = problem(20, 50, closeness=0.03)
    want, want_gradients = gradients(x, lambda y: oracle_loss(y, objective=objective))
    got, got_gradients = gradients(x, lambda y: ours(y, objective=objective))
    assert 0 < want["divergence"].item() / 20 < 0.02
    assert got.divergence.item() == pytest.approx(want["divergence"].item(), abs=20 * 2e-6)
    for name in ("student", "head"):
        assert error(got_gradients[name], want_gradients[name]) < 2e-4


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_logits_that_underflow_give_no_nan(objective: str, scale: float) -> None:
    x = problem(12, 40)
    x["student"] *= scale
    x["teacher"] *= -scale
    got, got_gradients = gradients(x, lambda y: ours(y, objective=objective))
    assert torch.isfinite(got.loss)
    assert all(torch.isfinite(g).all() for g in got_gradients.values())


@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.5, 1.0, 3.0]), objective=st.sampled_from(OBJECTIVES))
@settings(max_examples=40)
def test_divergence_is_never_negative_and_zero_at_equality(seed: int, temperature: float, objective: str) -> None:
    x = problem(5, 11, seed)
    assert ours(x, objective=objective, temperature=temperature).divergence.item() > -1e-5
    x |= {"teacher": x["student"].clone(), "teacher_head": x["head"].clone()}
    equal, equal_gradients = gradients(x, lambda y: ours(y, objective=objective, temperature=temperature))
    assert equal.divergence.item() == pytest.approx(0, abs=3e-5)
    assert equal_gradients["student"].abs().max().item() < 3e-5


@given(seed=st.integers(0, 10_000), beta=st.floats(0.05, 0.95))
@settings(max_examples=25)
def test_jsd_is_symmetric_when_the_sides_and_their_shares_are_swapped(seed: int, beta: float) -> None:
    x = problem(5, 11, seed)
    swapped = x | {
        "student": x["teacher"], "head": x["teacher_head"], "teacher": x["student"], "teacher_head": x["head"],
    }  # fmt: skip
    there, back = (ours(y, objective="jsd", beta=0.5).divergence.item() for y in (x, swapped))
    assert there == pytest.approx(back, rel=1e-5, abs=1e-6)
    there, back = (ours(y, objective="jsd", beta=b).divergence.item() for y, b in ((x, beta), (swapped, 1 - beta)))
    assert there == pytest.approx(back, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 10_000), objective=st.sampled_from(OBJECTIVES))
@settings(max_examples=25)
def test_relabelling_the_vocabulary_changes_nothing(seed: int, objective: str) -> None:
    x = problem(6, 17, seed)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(seed))
    moved = x | {
        "head": x["head"][order], "teacher_head": x["teacher_head"][order], "labels": order.argsort()[x["labels"]],
    }  # fmt: skip
    a, b = ours(x, objective=objective), ours(moved, objective=objective)
    assert b.divergence.item() == pytest.approx(a.divergence.item(), rel=1e-5, abs=1e-6)
    assert b.cross_entropy.item() == pytest.approx(a.cross_entropy.item(), rel=1e-5)


def test_labels_alone_are_cross_entropy() -> None:
    x = problem(9, 13)
    x["labels"][2] = -100
    sums, got = gradients(x, lambda y: linear_divergence(y["student"], y["head"], y["labels"], temperature=2.0))
    _, want = gradients(x, lambda y: oracle_loss(y, hard_label_weight=1.0))
    assert sums.divergence.item() == 0
    assert error(got["student"], want["student"]) < 2e-5
    assert error(got["head"], want["head"]) < 2e-5


def test_no_row_left_is_a_loss_of_zero() -> None:
    x = problem(4, 9)
    x["labels"][:] = -100
    sums, got = gradients(x, ours)
    assert sums.loss.item() == 0
    assert not got["student"].any()
    assert not got["head"].any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"objective": "backward_kl"}, "no objective 'backward_kl'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"objective": "jsd", "beta": 1.5}, "beta is 1.5"),
        ({"objective": "skew_kl", "alpha": 1.0}, "alpha is 1.0"),
        ({"objective": "jsd", "alpha": 0.1}, "objective 'jsd' has no parameter 'alpha'; it has beta"),
        ({"hard_label_weight": -0.1}, "hard_label_weight is -0.1"),
        ({"student_softcap": 0.0}, "student_softcap is 0.0"),
        ({"kernel": "cuda"}, "no kernel 'cuda'"),
        ({"chunk_tokens": -1}, "chunk_tokens is -1"),
        ({"vocab_size": 10}, "vocab_size is 10"),
        ({"weights_N": torch.ones(3)}, "4 hidden states"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ours(problem(4, 9), **options)


def test_a_label_outside_the_vocabulary_is_named() -> None:
    x = problem(4, 9)
    x["labels"][2] = 9
    with pytest.raises(ValueError, match="1 labels are outside the vocabulary of 9: row 2 has 9"):
        ours(x)


def test_heads_of_unequal_vocabulary_are_refused_without_its_true_size() -> None:
    x = problem(4, 9)
    x["teacher_head"] = x["teacher_head"][:8]
    with pytest.raises(ValueError, match="heads differ in vocabulary: student 9, teacher 8"):
        ours(x)
    with pytest.raises(ValueError, match="teacher_NG and teacher_head_VG must be given together"):
        linear_divergence(x["student"], x["head"], x["labels"], teacher_NG=x["teacher"])
