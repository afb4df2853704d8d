"""Loss of a classification head: a teacher's softened distribution over classes, and the right class.

Shapes: B rows, C classes.

Sources: Hinton, Vinyals and Dean 2015 (temperature, and T^2 that keeps its gradients' size); Sanh et al. 2019,
DistilBERT, which adds a cosine on hidden states: `potstill.components.losses.hidden`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.components.losses.chunks import LossSums

__all__ = ["classification_loss"]


def classification_loss(
    student_BC: Tensor,
    labels_B: Tensor,
    *,
    teacher_BC: Tensor | None = None,
    temperature: float = 1.0,
    hard_label_weight: float = 0.0,
) -> LossSums:
    """Sum over rows of (1 - hard) T^2 KL(p_T || q_T) + hard CE(labels).

    Classes are few, so autograd over whole logits costs nothing; they are taken to fp32 first.

    Args:
        student_BC: student's logits.
        labels_B: the right classes, int64.
        teacher_BC: teacher's logits, which get no gradient; None trains on labels alone.
        temperature: T > 0, on both sides, for the divergence alone.
        hard_label_weight: weight of the cross-entropy; taken as 1 without a teacher.

    Returns:
        Sums in nats. Divide by the rows of the whole global batch, once.

    Raises:
        ValueError: shapes or numbers that do not fit.
    """
    if teacher_BC is not None and teacher_BC.shape != student_BC.shape:
        raise ValueError(f"student's logits {tuple(student_BC.shape)}, teacher's {tuple(teacher_BC.shape)}: not alike")
    if not temperature > 0 or not 0 <= hard_label_weight <= 1:
        raise ValueError(f"temperature {temperature} and hard_label_weight {hard_label_weight}: above 0, and in [0, 1]")
    kind = torch.promote_types(student_BC.dtype, torch.float32)
    student_BC = student_BC.to(kind)
    cross_entropy = F.cross_entropy(student_BC, labels_B, reduction="sum")
    if teacher_BC is None:
        return LossSums(cross_entropy, torch.zeros_like(cross_entropy).detach(), cross_entropy.detach())
    log_q_BC = (student_BC / temperature).log_softmax(-1)
    log_p_BC = (teacher_BC.detach().to(kind) / temperature).log_softmax(-1)
    divergence = F.kl_div(log_q_BC, log_p_BC, reduction="sum", log_target=True) * temperature**2
    loss = (1 - hard_label_weight) * divergence + hard_label_weight * cross_entropy
    return LossSums(loss, divergence.detach(), cross_entropy.detach())
