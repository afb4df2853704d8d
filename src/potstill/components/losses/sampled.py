"""Reverse KL, estimated from the tokens that a student sampled; the loss reads no other token's probability.

Shapes: N tokens, V vocabulary, H student's hidden size, G teacher's. q is the student and p the teacher, both at the
temperature of the loss; s is the probability with which a token was sampled.

A token y sampled from s estimates KL(q || p) by (q / s) (ln q - ln p) at y. The mean over s is the KL, and the mean of
the gradient with respect to ln q(y) is that of the KL, because the gradient of ln q has mean 0 under q. The ratio q / s
is 1 for a student whose weights have not changed since it sampled. This is a policy gradient with the advantage
-(ln q - ln p), without a discount.

Sources: Agarwal et al. 2024, GKD; Lu and Thinking Machines 2025, On-Policy Distillation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.components.losses.chunks import LossSums, Work, chunk_rows, kept_rows, pick, project, run
from potstill.components.losses.divergence import true_vocab
from potstill.components.losses.rows import RowSpec

__all__ = ["linear_sampled_reverse_kl"]


def linear_sampled_reverse_kl(
    student_NH: Tensor,
    head_VH: Tensor,
    tokens_N: Tensor,
    sampled_logprobs_N: Tensor,
    *,
    teacher_NG: Tensor,
    teacher_head_VG: Tensor,
    temperature: float = 1.0,
    ignore_index: int = -100,
    weights_N: Tensor | None = None,
    vocab_size: int | None = None,
    chunk_tokens: int | None = None,
) -> LossSums:
    """Sum over tokens of w T^2 (q / s) (ln q - ln p); the mean of its gradient over s is that of the reverse KL.

    Args:
        student_NH: the student's last hidden states at the positions where it sampled.
        head_VH: the student's output embedding.
        tokens_N: the sampled tokens, int64; rows of `ignore_index` have no loss.
        sampled_logprobs_N: ln s of each token, in nats, at the sampling temperature.
        teacher_NG: the teacher's last hidden states at the same positions.
        teacher_head_VG: the teacher's output embedding.
        others: as for `linear_divergence`.

    Returns:
        Sums in nats; `divergence` is the estimate, which may be negative.

    Raises:
        ValueError: shapes or tokens do not match, or a number is outside its range.
    """
    vocab = true_vocab(head_VH, teacher_head_VG, vocab_size)
    spec = RowSpec.of("reverse_kl", temperature=temperature)
    if not len(teacher_NG) == len(sampled_logprobs_N) == len(student_NH):
        raise ValueError(
            f"{len(student_NH)} hidden states of the student, {len(teacher_NG)} of the teacher and "
            f"{len(sampled_logprobs_N)} log-probabilities: give one of each per token"
        )
    rows, kept = kept_rows(tokens_N, weights_N, ignore_index, vocab, len(student_NH))
    tokens_N, weights_N = pick(tokens_N, weights_N, kept)
    if kept is not None:
        teacher_NG, sampled_logprobs_N = teacher_NG[kept], sampled_logprobs_N[kept]
    widths = head_VH.shape[1], teacher_head_VG.shape[1]
    step = chunk_rows(rows, vocab, student_NH.device, chunk_tokens, *widths)
    buffer_NV = torch.empty(step, vocab, dtype=torch.float32, device=student_NH.device)
    score = _SampledRows(
        temperature, teacher_NG, teacher_head_VG[:vocab], buffer_NV, tokens_N, sampled_logprobs_N, weights_N
    )
    work = Work(score, 2, rows, kept, weights_N, vocab, spec.temperature, 0.0, step, torch.is_grad_enabled())
    return run(student_NH, head_VH, work)


@dataclass(frozen=True)
class _SampledRows:
    """Scores chunks of the student's logits. All tensors are those of the kept rows."""

    temperature: float
    teacher_NG: Tensor
    teacher_head_VG: Tensor
    buffer_NV: Tensor
    tokens_N: Tensor
    sampled_logprobs_N: Tensor
    weights_N: Tensor | None

    @torch.no_grad()
    def __call__(self, z_NV: Tensor, chunk: slice, values_KN: Tensor) -> None:
        tokens_N1, temperature = self.tokens_N[chunk, None], self.temperature
        t_NV = self.buffer_NV[: len(z_NV)]
        project(self.teacher_NG[chunk], self.teacher_head_VG, temperature, t_NV)
        log_p_N = t_NV.gather(1, tokens_N1)[:, 0] - t_NV.logsumexp(1)
        at_token_N = z_NV.gather(1, tokens_N1)[:, 0]
        # the teacher's logits are no longer needed: the student's at temperature 1 overwrite them
        untempered_NV = torch.mul(z_NV, temperature, out=t_NV)
        values_KN[1] = untempered_NV.logsumexp(1) - at_token_N * temperature
        lse_N = z_NV.logsumexp(1)
        log_q_N = at_token_N - lse_N
        term_N = (log_q_N - self.sampled_logprobs_N[chunk]).exp_().mul_(log_q_N - log_p_N).mul_(temperature)
        values_KN[0] = term_N * temperature
        if self.weights_N is not None:
            term_N = term_N * self.weights_N[chunk]
        # d ln q(y) / dz = onehot - q
        z_NV.sub_(lse_N[:, None]).exp_().mul_(-term_N[:, None])
        z_NV.scatter_add_(1, tokens_N1, term_N[:, None])
