"""The fused loss against float64 autograd, and what must hold for any divergence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.losses import divergence as module
from potstill.losses.divergence import linear_divergence


def reference(
    student: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, teacher_head: torch.Tensor,
    temperature: float, hard: float,
) -> torch.Tensor:  # fmt: skip
    """The definition, written for reading: whole logits, autograd."""
    z, t = student @ head.T, teacher @ teacher_head.T
    p, log_p, log_q = (
        (t / temperature).softmax(-1),
        (t / temperature).log_softmax(-1),
        (z / temperature).log_softmax(-1),
    )
    kl = (p * (log_p - log_q)).sum() * temperature**2
    return (1 - hard) * kl + hard * torch.nn.functional.cross_entropy(z, labels, reduction="sum")


def inputs(n: int, v: int, seed: int = 0, closeness: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    student, head = randn(n, 12), randn(v, 12)
    teacher = torch.cat([student, closeness * randn(n, 4)], dim=1)
    teacher_head = torch.cat([head, randn(v, 4)], dim=1)
    return {
        "student": student,
        "head": head,
        "labels": torch.randint(0, v, (n,), generator=generator),
        "teacher": teacher,
        "teacher_head": teacher_head,
    }


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_loss_and_gradients_equal_float64_autograd(
    temperature: float, hard: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_TOKENS", 8)  # so that 30 tokens are several chunks with a ragged end
    x = inputs(n, 23)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    for tensors in (x, exact):
        tensors["student"].requires_grad_()
        tensors["head"].requires_grad_()
    expected = reference(
        *(exact[k] for k in ("student", "head", "labels", "teacher", "teacher_head")), temperature, hard
    )  # type: ignore[arg-type]
    expected.backward()
    sums = linear_divergence(
        x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"],
        temperature=temperature, hard_label_share=hard,
    )  # fmt: skip
    (3.0 * sums.loss).backward()
    assert sums.loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    for name in ("student", "head"):
        got, want = x[name].grad, exact[name].grad
        assert got is not None
        assert want is not None
        assert (got.double() / 3.0 - want).norm() <= 2e-5 * want.norm() + 1e-9


def test_gradient_stays_exact_where_student_is_close_to_teacher() -> None:
    x = inputs(20, 50, closeness=0.05)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    for tensors in (x, exact):
        tensors["student"].requires_grad_()
    expected = reference(*(exact[k] for k in ("student", "head", "labels", "teacher", "teacher_head")), 1.0, 0.0)  # type: ignore[arg-type]
    expected.backward()
    sums = linear_divergence(
        x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"]
    )
    assert 0 < sums.divergence.item() / 20 < 0.05
    sums.loss.backward()
    got, want = x["student"].grad, exact["student"].grad
    assert got is not None
    assert want is not None
    assert (got.double() - want).norm() <= 1e-3 * want.norm()


@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_divergence_is_never_negative_and_zero_at_equality(seed: int, temperature: float) -> None:
    x = inputs(5, 11, seed)
    apart = linear_divergence(
        x["student"],
        x["head"],
        x["labels"],
        teacher_NG=x["teacher"],
        teacher_head_VG=x["teacher_head"],
        temperature=temperature,
    )
    assert apart.divergence.item() > -1e-5
    equal = linear_divergence(
        x["student"].requires_grad_(), x["head"], x["labels"], teacher_NG=x["student"].detach(),
        teacher_head_VG=x["head"],
        temperature=temperature,
    )  # fmt: skip
    assert equal.divergence.item() == pytest.approx(0, abs=1e-5)
    equal.loss.backward()
    assert x["student"].grad is not None
    assert x["student"].grad.abs().max().item() < 1e-5


def test_relabelling_the_vocabulary_changes_nothing() -> None:
    x = inputs(6, 17)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    plain = linear_divergence(
        x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"]
    )
    moved = linear_divergence(
        x["student"],
        x["head"][order],
        order.argsort()[x["labels"]],
        teacher_NG=x["teacher"],
        teacher_head_VG=x["teacher_head"][order],
    )
    assert moved.divergence.item() == pytest.approx(plain.divergence.item(), rel=1e-5)
    assert moved.cross_entropy.item() == pytest.approx(plain.cross_entropy.item(), rel=1e-5)


def test_frozen_head_gets_no_gradient() -> None:
    x = inputs(4, 9)
    sums = linear_divergence(x["student"].requires_grad_(), x["head"], x["labels"])
    sums.loss.backward()
    assert x["head"].grad is None
    assert x["student"].grad is not None


def test_heads_of_unequal_vocabulary_are_refused() -> None:
    x = inputs(4, 9)
    with pytest.raises(ValueError, match="vocabulary"):
        linear_divergence(
            x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"][:8]
        )
