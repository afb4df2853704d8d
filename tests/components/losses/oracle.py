"""The losses again, from their definitions: whole logits, float64, autograd. Shares no code with the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OBJECTIVES = (
    "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "skew_reverse_kl_detached", "total_variation",
)  # fmt: skip


def kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(a || b) of each row; 0 log 0 is 0."""
    return (torch.xlogy(a, a) - a * b.log()).sum(-1)


def divergence(objective: str, p: Tensor, q: Tensor, beta: float, alpha: float) -> Tensor:
    """Of each row."""
    if objective == "forward_kl" or (objective == "jsd" and beta == 0):
        return kl(p, q)
    if objective == "reverse_kl" or (objective == "jsd" and beta == 1):
        return kl(q, p)
    if objective == "jsd":
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)
    if objective == "skew_kl":
        return kl(p, alpha * p + (1 - alpha) * q)
    if objective == "skew_reverse_kl":
        return kl(q, (1 - alpha) * p + alpha * q)
    if objective == "skew_reverse_kl_detached":
        return kl(q, (1 - alpha) * p + alpha * q.detach())
    assert objective == "total_variation"
    return 0.5 * (p - q).abs().sum(-1)


def logits(hidden: Tensor, head: Tensor, vocab: int | None, cap: float | None) -> Tensor:
    """Logits of the true vocabulary."""
    z = hidden.double() @ head.double()[:vocab].T
    return z if cap is None else cap * torch.tanh(z / cap)


def loss(
    x: dict[str, Tensor], *, objective: str = "forward_kl", beta: float = 0.5, alpha: float = 0.1,
    temperature: float = 1.0, hard_label_weight: float = 0.0, ignore_index: int = -100, weights_N: Tensor | None = None,
    student_softcap: float | None = None, teacher_softcap: float | None = None, vocab_size: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Sums as of `linear_divergence`, from the tensors that `problem` makes."""
    z = logits(x["student"], x["head"], vocab_size, student_softcap)
    t = logits(x["teacher"], x["teacher_head"], vocab_size, teacher_softcap)
    kept = x["labels"] != ignore_index
    w = kept.double() if weights_N is None else kept * weights_N.double()
    d = divergence(objective, (t / temperature).softmax(-1), (z / temperature).softmax(-1), beta, alpha)
    ce = torch.nn.functional.cross_entropy(z, x["labels"], reduction="none", ignore_index=ignore_index)
    soft, hard = (w * d).sum() * temperature**2, (w * ce).sum()
    return {
        "loss": (1 - hard_label_weight) * soft + hard_label_weight * hard, "divergence": soft, "cross_entropy": hard,
    }  # fmt: skip


def bucket_kl(z: Tensor, rows: list[dict[int, float]], tails: list[float] | None) -> Tensor:
    """KL of each row from stored buckets to the student's; with tails, the rest of the vocabulary is one bucket."""
    out = []
    for number, row in enumerate(rows):
        q = z[number].softmax(-1)
        stored = torch.zeros(z.shape[1], dtype=torch.bool)
        total = z.new_zeros(())
        for token, probability in row.items():
            stored[token] = True
            if probability > 0:
                total = total + probability * (torch.tensor(probability, dtype=z.dtype).log() - q[token].log())
        if tails is not None and tails[number] > 0:
            total = total + tails[number] * (torch.tensor(tails[number], dtype=z.dtype).log() - q[~stored].sum().log())
        out.append(total)
    return torch.stack(out)


def problem(n: int, v: int, seed: int = 0, *, closeness: float = 1.0, pad: int = 0, h: int = 12) -> dict[str, Tensor]:
    """Random student and teacher; `pad` rows of junk end the student's head, and twice as many the teacher's."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    student, head = randn(n, h), randn(v, h)
    teacher = torch.cat([student, closeness * randn(n, 4)], dim=1)
    teacher_head = torch.cat([head, randn(v, 4)], dim=1)
    return {
        "student": student, "head": torch.cat([head, 5 * randn(pad, h)]), "teacher": teacher,
        "teacher_head": torch.cat([teacher_head, 5 * randn(2 * pad, h + 4)]),
        "labels": torch.randint(0, v, (n,), generator=generator),
    }  # fmt: skip


def gradients(x: dict[str, Tensor], of: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """What `of` gives for fresh leaves, and the gradients of its loss with respect to hidden states and head."""
    x = {k: v.clone().requires_grad_(k in ("student", "head")) for k, v in x.items()}
    out = of(x)
    (out["loss"] if isinstance(out, dict) else out.loss).backward()
    return out, {k: x[k].grad.double() for k in ("student", "head")}  # type: ignore[union-attr]


def error(got: Tensor, want: Tensor) -> float:
    """Relative, in norm."""
    return float((got.double() - want.double()).norm() / want.double().norm())
