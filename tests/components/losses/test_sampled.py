"""Reverse KL from drawn tokens: what it is on average, whoever drew them, is the reverse KL and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.losses.oracle import error, gradients, problem
from components.losses.oracle import loss as oracle_loss
from potstill.components.losses.divergence import LossSums
from potstill.components.losses.sampled import linear_sampled_reverse_kl

N, V = 7, 13


def every_draw(x: dict[str, Tensor], sampler_NV: Tensor, temperature: float) -> LossSums:
    """Each token of the vocabulary drawn once at each position, weighted by its probability of being drawn."""
    n, v = sampler_NV.shape
    return linear_sampled_reverse_kl(
        x["student"].repeat_interleave(v, 0), x["head"], torch.arange(v).repeat(n), sampler_NV.log().flatten(),
        teacher_NG=x["teacher"].repeat_interleave(v, 0), teacher_head_VG=x["teacher_head"], temperature=temperature,
        weights_N=sampler_NV.flatten(), vocab_size=v, chunk_tokens=8,
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("stale", [False, True], ids=["on-policy", "stale"])
def test_on_average_it_is_the_reverse_kl(temperature: float, stale: bool) -> None:
    """Importance weights make up for a student that has moved since, and for another temperature of drawing."""
    x = problem(N, V, pad=2)
    logits_NV = x["student"] @ x["head"][:V].T
    if stale:
        logits_NV = 0.4 * logits_NV + torch.randn(N, V, generator=torch.Generator().manual_seed(9))
    sampler_NV = logits_NV.softmax(-1)
    want, want_gradients = gradients(
        x, lambda y: oracle_loss(y, objective="reverse_kl", temperature=temperature, vocab_size=V)
    )
    got, got_gradients = gradients(x, lambda y: every_draw(y, sampler_NV, temperature))
    assert got.divergence.item() == pytest.approx(want["divergence"].item(), rel=1e-5)
    for name in ("student", "head"):
        assert error(got_gradients[name], want_gradients[name]) < 2e-5, name


def drawn(x: dict[str, Tensor], tokens: Tensor, log_s: Tensor, **options: object) -> LossSums:
    return linear_sampled_reverse_kl(
        x["student"], x["head"], tokens, log_s, teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"], **options
    )  # type: ignore[arg-type]


def test_each_token_by_its_definition() -> None:
    x, tokens = problem(N, V), torch.arange(N)
    log_q, log_p = (
        (x[a].double() @ x[b].double().T / 2.0).log_softmax(-1)[tokens, tokens]
        for a, b in (("student", "head"), ("teacher", "teacher_head"))
    )
    log_s = log_q.float() - 0.3
    want = 4.0 * float((torch.exp(torch.tensor(0.3)) * (log_q - log_p)).sum())
    sums = drawn(x, tokens, log_s, temperature=2.0, chunk_tokens=3)
    assert sums.loss.item() == pytest.approx(want, rel=1e-4)
    hard = torch.nn.functional.cross_entropy(x["student"] @ x["head"].T, tokens, reduction="sum")
    assert sums.cross_entropy.item() == pytest.approx(hard.item(), rel=1e-5)


def test_ignored_rows_cost_nothing_and_the_sum_is_divided_by_the_caller() -> None:
    x, tokens, log_s = problem(N, V), torch.arange(N), torch.full((N,), -1.0)
    some = tokens.clone()
    some[[0, 3]] = -100
    kept = some != -100
    part = {k: v[kept] if k in ("student", "teacher", "labels") else v for k, v in x.items()}
    whole, whole_gradients = gradients(x, lambda y: drawn(y, some, log_s))
    alone, alone_gradients = gradients(part, lambda y: drawn(y, tokens[kept], log_s[kept]))
    assert whole.loss.item() == pytest.approx(alone.loss.item(), rel=1e-6)
    assert torch.allclose(whole_gradients["student"][kept], alone_gradients["student"])
    assert not whole_gradients["student"][~kept].any()
    assert error(whole_gradients["head"], alone_gradients["head"]) < 1e-6


def test_what_does_not_fit_is_refused() -> None:
    x, tokens = problem(N, V), torch.arange(N)
    with pytest.raises(ValueError, match="7 hidden states of the student, 7 of the teacher and 6 log-probabilities"):
        drawn(x, tokens, torch.zeros(N - 1))
    with pytest.raises(ValueError, match=r"temperature is 0\.0"):
        drawn(x, tokens, torch.zeros(N), temperature=0.0)
