"""The classification head's loss, against its definition in float64 and against gradients worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.losses.oracle import kl
from potstill.components.losses.classification import classification_loss

ROWS, CLASSES = 5, 7


def logits(seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student_BC, teacher_BC = (scale * torch.randn(ROWS, CLASSES, generator=generator) for _ in range(2))
    return student_BC, teacher_BC, torch.randint(CLASSES, (ROWS,), generator=generator)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
def test_values_and_gradients_are_the_definitions(temperature: float, hard: float) -> None:
    student_BC, teacher_BC, labels_B = logits(0)
    student_BC.requires_grad_()
    found = classification_loss(
        student_BC, labels_B, teacher_BC=teacher_BC, temperature=temperature, hard_label_weight=hard
    )
    p_BC = (teacher_BC.double() / temperature).softmax(-1)
    z_BC = student_BC.detach().double()
    soft = kl(p_BC, (z_BC / temperature).softmax(-1)).sum() * temperature**2
    right_BC = torch.nn.functional.one_hot(labels_B, CLASSES).double()
    ce = -(z_BC.log_softmax(-1) * right_BC).sum()
    assert float(found.divergence) == pytest.approx(float(soft), rel=1e-5)
    assert float(found.cross_entropy) == pytest.approx(float(ce), rel=1e-5)
    assert found.loss.item() == pytest.approx(float((1 - hard) * soft + hard * ce), rel=1e-5)
    # by hand: T^2 leaves one T of the softened gradient, (q_T - p_T) / T
    expected_BC = (1 - hard) * temperature * ((z_BC / temperature).softmax(-1) - p_BC)
    expected_BC += hard * (z_BC.softmax(-1) - right_BC)
    (gradient_BC,) = torch.autograd.grad(found.loss, student_BC)
    torch.testing.assert_close(gradient_BC.double(), expected_BC, rtol=2e-5, atol=2e-6)


def test_worked_example() -> None:
    """Two classes, odds 3:1 against even: KL = 3/4 ln(3/2) + 1/4 ln(1/2)."""
    found = classification_loss(
        torch.zeros(1, 2), torch.tensor([1]), teacher_BC=torch.tensor([[math.log(3), 0.0]]), hard_label_weight=0.5
    )
    assert float(found.divergence) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)
    assert float(found.cross_entropy) == pytest.approx(math.log(2), rel=1e-6)


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.25, 16), shift=st.floats(-50, 50))
def test_divergence_is_never_negative_and_knows_no_shift(seed: int, temperature: float, shift: float) -> None:
    student_BC, teacher_BC, labels_B = (x.double() if x.is_floating_point() else x for x in logits(seed))
    one = classification_loss(student_BC, labels_B, teacher_BC=teacher_BC, temperature=temperature)
    other = classification_loss(student_BC + shift, labels_B, teacher_BC=teacher_BC, temperature=temperature)
    assert float(one.divergence) >= 0
    assert float(one.divergence) == pytest.approx(float(other.divergence), rel=1e-6, abs=1e-9)
    same = classification_loss(teacher_BC + shift, labels_B, teacher_BC=teacher_BC, temperature=temperature)
    assert float(same.divergence) == pytest.approx(0, abs=1e-9)


def test_without_a_teacher_it_is_cross_entropy_and_the_teacher_never_learns() -> None:
    student_BC, teacher_BC, labels_B = logits(1)
    alone = classification_loss(student_BC, labels_B, temperature=4.0)
    assert float(alone.loss) == pytest.approx(
        float(torch.nn.functional.cross_entropy(student_BC, labels_B, reduction="sum"))
    )
    assert float(alone.divergence) == 0
    teacher_BC.requires_grad_()
    student_BC.requires_grad_()
    classification_loss(student_BC, labels_B, teacher_BC=teacher_BC).loss.backward()
    assert teacher_BC.grad is None
    assert student_BC.grad is not None


def test_half_precision_is_summed_in_fp32() -> None:
    student_BC, teacher_BC, labels_B = (x.bfloat16() if x.is_floating_point() else x for x in logits(2))
    found = classification_loss(student_BC, labels_B, teacher_BC=teacher_BC)
    exact = classification_loss(student_BC.double(), labels_B, teacher_BC=teacher_BC.double())
    assert found.loss.dtype == torch.float32
    assert float(found.loss) == pytest.approx(float(exact.loss), rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "numbers", "message"),
    [
        (CLASSES + 1, {}, "shapes must be equal"),
        (CLASSES, {"temperature": 0.0}, "temperature"),
        (CLASSES, {"hard_label_weight": 1.5}, "hard_label_weight"),
    ],
)
def test_what_does_not_fit_is_refused(classes: int, numbers: dict[str, float], message: str) -> None:
    student_BC, _, labels_B = logits(3)
    with pytest.raises(ValueError, match=message):
        classification_loss(student_BC, labels_B, teacher_BC=torch.zeros(ROWS, classes), **numbers)
