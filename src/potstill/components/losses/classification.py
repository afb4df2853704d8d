"""Loss of a classification head: on the teacher's softened distribution over classes, and on the right class.

Shapes: B rows, C classes.

Sources: Hinton, Vinyals and Dean 2015 (temperature, and T^2 to keep the size of the gradients); Sanh et al. 2019,
DistilBERT, which adds a cosine on hidden states (`potstill.components.losses.hidden`).
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

    There are few classes, so the whole logits are computed, in fp32, with autograd.

    Args:
        student_BC: logits of the student.
        labels_B: numbers of the right classes, int64.
        teacher_BC: logits of the teacher, which get no gradient; None trains on labels only.
        temperature: T > 0, for both sides of the divergence.
        hard_label_weight: weight of the cross-entropy; taken as 1 without a teacher.

    Returns:
        Sums in nats. Divide them once by the number of rows of the global batch.

    Raises:
        ValueError: shapes do not match, or a number is outside its range.
    """
    if teacher_BC is not None and teacher_BC.shape != student_BC.shape:
        raise ValueError(f"logits {tuple(student_BC.shape)} and {tuple(teacher_BC.shape)}: shapes must be equal")
    if not temperature > 0 or not 0 <= hard_label_weight <= 1:
        raise ValueError(
            f"temperature {temperature} must be above 0, and hard_label_weight {hard_label_weight} in [0, 1]"
        )
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
