"""Defects that other tools' losses were found to have: ours has none of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from components.losses.oracle import OBJECTIVES, error, gradients, kl, problem
from components.losses.oracle import logits as oracle_logits
from components.losses.oracle import loss as oracle_loss
from potstill.components.chat.format import Example
from potstill.components.losses.chunks import chunk_rows
from potstill.components.losses.divergence import LossSums, linear_divergence
from potstill.components.losses.sparse import SparseTargets, linear_sparse_divergence
from potstill.components.training.batches import SampledAnswer, pack
from potstill.components.training.counts import Counts


def ours(x: dict[str, Tensor], **options: Any) -> LossSums:
    return linear_divergence(
        x["student"], x["head"], x["labels"], teacher_NG=x["teacher"], teacher_head_VG=x["teacher_head"],
        **options,
    )  # fmt: skip


def half(x: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """Some tensors in bf16."""
    return x | {name: x[name].bfloat16() for name in names}


def near(kl_per_token: float, n: int = 64, v: int = 400) -> dict[str, Tensor]:
    """A student in bf16 whose teacher is about that far away, in confident distributions."""
    closeness = 0.1
    for _ in range(5):
        x = half(problem(n, v, h=48, closeness=closeness), "student", "head", "teacher", "teacher_head")
        found = oracle_loss(x)["divergence"].item() / n
        closeness *= (kl_per_token / found) ** 0.5
    assert 0.8 * kl_per_token < found < 1.25 * kl_per_token, found
    return x


def test_the_loss_is_a_sum_that_the_caller_divides_once() -> None:
    """Normalising twice made a loss smaller by the number of tokens."""
    x = problem(6, 17)
    one = ours(x).divergence.item()
    twice = {k: torch.cat([v, v]) if k in ("student", "teacher", "labels") else v for k, v in x.items()}
    assert ours(twice).divergence.item() == pytest.approx(2 * one, rel=1e-5)
    assert ours(x, chunk_tokens=2).divergence.item() == pytest.approx(one, rel=1e-5)
    z, t = (oracle_logits(x[a], x[b], None, None) for a, b in (("student", "head"), ("teacher", "teacher_head")))
    assert one / 6 == pytest.approx(kl(t.softmax(-1), z.softmax(-1)).mean().item(), rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_teacher_rows_stay_with_their_tokens_when_rows_are_shuffled_or_dropped(objective: str) -> None:
    x = problem(11, 17)
    x["labels"][[0, 1, 5]] = -100  # a masked prompt at the head, and a hole
    kept = x["labels"] != -100
    alone = x | {k: x[k][kept] for k in ("student", "teacher", "labels")}
    options: dict[str, Any] = {"objective": objective, "hard_label_weight": 0.3, "chunk_tokens": 3}
    whole, whole_gradients = gradients(x, lambda y: ours(y, **options))
    part, part_gradients = gradients(alone, lambda y: ours(y, **options))
    assert whole.loss.item() == pytest.approx(part.loss.item(), rel=1e-6)
    assert torch.allclose(whole_gradients["student"][kept], part_gradients["student"], atol=1e-6)
    assert not whole_gradients["student"][~kept].any()
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    mixed = x | {k: x[k][order] for k in ("student", "teacher", "labels")}
    shuffled, shuffled_gradients = gradients(mixed, lambda y: ours(y, **options))
    assert shuffled.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
    assert torch.allclose(shuffled_gradients["student"], whole_gradients["student"][order], atol=1e-5)
    assert torch.allclose(shuffled_gradients["head"], whole_gradients["head"], atol=1e-5)


def test_ignored_rows_may_hold_anything() -> None:
    x = problem(5, 9)
    want = ours(x | {k: x[k][1:] for k in ("student", "teacher", "labels")}).loss.item()
    x["labels"][0], x["student"][0], x["teacher"][0] = -100, math.nan, math.inf
    sums, found = gradients(x, ours)
    assert sums.loss.item() == pytest.approx(want, rel=1e-6)
    assert all(torch.isfinite(g).all() for g in found.values())
    x["labels"][0] = 3
    assert ours(x, weights_N=torch.tensor([0.0, 1, 1, 1, 1])).loss.item() == pytest.approx(want, rel=1e-6)


def test_padding_of_the_vocabulary_has_no_probability() -> None:
    """A pad entry of logit 0 carries a real share of the mass."""
    x = problem(6, 17, pad=4)
    true = x | {"head": x["head"][:17], "teacher_head": x["teacher_head"][:17]}
    zeroed = x | {"head": torch.cat([x["head"][:17], torch.zeros(4, 12)])}
    want, want_gradients = gradients(true, ours)
    for y in (x, zeroed):
        got, got_gradients = gradients(y, lambda y: ours(y, vocab_size=17))
        assert got.loss.item() == want.loss.item()
        assert torch.equal(got_gradients["head"][:17], want_gradients["head"])
        assert not got_gradients["head"][17:].any()


def test_one_family_with_two_paddings() -> None:
    """151,936 against 152,064 rows for the same 151,669 tokens: elsewhere a crash."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, generator=generator), torch.randn(2, 6, generator=generator)
    x = {
        "student": student, "head": torch.randn(151_936, 4, generator=generator), "teacher": teacher,
        "teacher_head": torch.randn(152_064, 6, generator=generator), "labels": torch.tensor([151_668, 7]),
    }  # fmt: skip
    want, want_gradients = gradients(x, lambda y: oracle_loss(y, vocab_size=151_669, hard_label_weight=0.3))
    got, got_gradients = gradients(x, lambda y: ours(y, vocab_size=151_669, hard_label_weight=0.3))
    assert got.loss.item() == pytest.approx(want["loss"].item(), rel=1e-5)
    assert error(got_gradients["student"], want_gradients["student"]) < 2e-5
    assert error(got_gradients["head"], want_gradients["head"]) < 2e-5


def test_a_tempered_divergence_keeps_its_size() -> None:
    """T^2 KL tends to half the variance of the difference of logits; without T^2 it tends to 0."""
    x = problem(6, 17)
    difference = oracle_logits(x["student"], x["head"], None, None) - oracle_logits(
        x["teacher"], x["teacher_head"], None, None
    )
    limit = 0.5 * difference.var(dim=1, correction=0).sum().item()
    assert ours(x, temperature=100.0).divergence.item() == pytest.approx(limit, rel=0.05)


def stored(x: dict[str, Tensor], k: int) -> SparseTargets:
    """The teacher's likeliest k tokens, and the mass of the others."""
    p = oracle_logits(x["teacher"], x["teacher_head"], None, None).softmax(-1)
    top = p.topk(k)
    offsets = torch.arange(len(p) + 1) * k
    return SparseTargets(offsets, top.indices.flatten(), top.values.flatten().float(), 1 - top.values.sum(-1).float())


def test_tokens_that_are_not_stored_get_a_gradient() -> None:
    """A student that is renormalised over the stored k is free to say anything else."""
    x = problem(6, 17)
    targets, z = stored(x, 4), oracle_logits(x["student"], x["head"], None, None).float()
    x |= {"student": z, "head": torch.eye(17)}  # hidden states that are the logits
    _, found = gradients(x, lambda y: linear_sparse_divergence(y["student"], y["head"], y["labels"], targets))
    outside = torch.ones(6, 17, dtype=torch.bool).scatter(1, targets.token_ids.reshape(6, 4), False)
    assert (found["student"][outside] != 0).all()


def test_draining_mass_from_the_stored_tokens_costs_and_shows() -> None:
    """A reverse KL over the top k falls to 0 as the student leaves the support; this loss rises, and the log tells."""
    x = problem(6, 17)
    targets, z = stored(x, 4), oracle_logits(x["student"], x["head"], None, None).float()
    sums = []
    for drained in (0.0, 4.0, 8.0):
        rows = z.clone().scatter_add_(1, targets.token_ids.reshape(6, 4), torch.full((6, 4), -drained))
        sums.append(linear_sparse_divergence(rows, torch.eye(17), x["labels"], targets))
    assert sums[0].divergence < sums[1].divergence < sums[2].divergence
    masses = [s.student_mass.item() for s in sums if s.student_mass is not None]
    assert masses == sorted(masses, reverse=True) and masses[-1] < 0.1 * masses[0]
    assert all(s.teacher_mass is not None and s.teacher_mass > 2 for s in sums)


def test_masked_prompts_do_not_shift_the_labels() -> None:
    """The first answer token is predicted at the prompt's last place, and nothing after the last one is."""
    rows = [Example((5, 6, 7, 8, 9), 3, True), Example((5, 6, 4), 2, True)]
    batch = pack(rows, pad_id=0)
    ids = batch.input_ids[0]
    assert batch.labels.tolist() == [8, 9, 4] == [int(ids[p + 1]) for p in batch.positions]
    assert [int(ids[p]) for p in batch.positions] == [7, 8, 6]


def test_student_answers_are_a_mean_over_what_was_drawn() -> None:
    """A loss divided by the token count of the data set shrinks with texts that it is not about."""
    teachers, drawn = Example(tuple(range(50)), 10, True), SampledAnswer(tuple(range(12)), 10, False, (-1.0, -1.0))
    assert Counts.of([[drawn]]).weights(None).sampled == 1 / 2
    assert Counts.of([[drawn, teachers]]).weights(None).sampled == 0.5 / 2
    assert Counts.of([[drawn, teachers]]).weights(None).text == 0.5 / 40


def test_forward_kl_reaches_zero() -> None:
    """Cross-entropy under the name of KL stops at the teacher's entropy."""
    x = problem(6, 17)
    x |= {"teacher": x["student"], "teacher_head": x["head"]}
    assert ours(x).loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o != "total_variation"])
@pytest.mark.parametrize("parts", [("student", "head"), ("head",), ("student",)], ids="+".join)
def test_bf16_weights_keep_the_gradient_where_student_is_close(objective: str, parts: tuple[str, ...]) -> None:
    x = near(0.01)
    x |= {name: x[name].float() for name in ("student", "head") if name not in parts}
    _, want = gradients({k: v.double() if v.is_floating_point() else v for k, v in x.items()},
                        lambda y: oracle_loss(y, objective=objective))  # fmt: skip
    _, got = gradients(x, lambda y: ours(y, objective=objective, chunk_tokens=24))
    assert error(got["student"], want["student"]) < 0.01
    assert error(got["head"], want["head"]) < 0.01


def test_rounding_the_logits_to_bf16_would_have_been_seen() -> None:
    x = {k: v.double() if v.is_floating_point() else v for k, v in near(0.01).items()}
    _, want = gradients(x, oracle_loss)

    def rounded(y: dict[str, Tensor]) -> dict[str, Tensor]:
        z = (y["student"] @ y["head"].T).bfloat16().double()
        t = (y["teacher"] @ y["teacher_head"].T).bfloat16().double()
        return {"loss": kl(t.softmax(-1), z.softmax(-1)).sum()}

    assert error(gradients(x, rounded)[1]["student"], want["student"]) > 0.05


def test_autocast_does_not_reach_the_logits() -> None:
    x = near(0.01)
    _, outside = gradients(x, ours)
    with torch.autocast("cpu", torch.bfloat16):
        _, inside = gradients(x, ours)
    assert torch.equal(outside["student"], inside["student"])
    assert torch.equal(outside["head"], inside["head"])


class Allocations(TorchDispatchMode):
    """Storages of at least `least` bytes that operations make."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.seen = least, dict[int, Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= self.least:
                # held, so that an address is not used twice
                self.seen[tensor.untyped_storage().data_ptr()] = tensor
        return out


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("trains_head", [True, False])
def test_two_chunks_of_logits_and_the_gradients_are_all_the_memory(
    objective: str, trains_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.components.losses.rows._BLOCK", {"cpu": 64})
    n, v, chunk = 64, 64, 8
    x = problem(n, v, h=12)  # a head's gradient is larger than a chunk's logits
    x["student"].requires_grad_()
    x["head"].requires_grad_(trains_head)
    inputs = {t.untyped_storage().data_ptr() for t in x.values()}
    with Allocations(4 * v * chunk) as found:
        loss = ours(x, objective=objective, chunk_tokens=chunk).loss
    made = {p: t.untyped_storage().nbytes() for p, t in found.seen.items() if p not in inputs}
    assert sorted(made.values()) == sorted([4 * v * chunk] * 2 + [4 * n * 12] + [4 * v * 12] * trains_head)
    found.seen.clear()
    loss.backward()
    for name in ("student", "head") if trains_head else ("student",):
        # what the forward pass made is what the parameter is given, not a copy
        gradient = x[name].grad
        assert gradient is not None and gradient.untyped_storage().data_ptr() in made


def test_a_frozen_head_gets_no_gradient_and_evaluation_forms_none() -> None:
    x = problem(40, 64)
    sums = ours(x | {"student": x["student"].requires_grad_()})
    sums.loss.backward()
    assert x["head"].grad is None
    assert x["student"].grad is not None
    x["head"].requires_grad_()
    with torch.no_grad(), Allocations(4 * 64 * 12) as found:
        again = ours(x, chunk_tokens=4)
    assert again.loss.item() == pytest.approx(sums.loss.item(), rel=1e-5)
    assert all(t.untyped_storage().data_ptr() in {v.untyped_storage().data_ptr() for v in x.values()}
               for t in found.seen.values())  # fmt: skip


def test_chunks_are_even_and_capped_by_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert chunk_rows(600, 32_000, cpu, None, 256, 512) == 304
    assert chunk_rows(100, 32_000, cpu, 64, 256) == 56
    assert chunk_rows(100, 32_000, cpu, 51, 256) == 51
    assert chunk_rows(0, 10, cpu, None, 256) == 0
    # buffers of logits take 96 MiB, or half of what the heads and the head's gradient take, and are bounded both ways
    for student, teacher in ((512, 1024), (512, 0), (1024, 1536)):
        buffers = (2 if teacher else 1) * chunk_rows(4096, 128_256, cpu, None, student, teacher)
        assert buffers == pytest.approx((2 * student + teacher) / 2, rel=0.15)
    assert chunk_rows(4096, 32_000, cpu, None, 64, 64) * 2 * 4 * 32_000 == pytest.approx(96 << 20, rel=0.1)
    assert chunk_rows(2048, 151_936, cpu, None, 64, 64) == 256
    assert chunk_rows(8192, 151_936, cpu, None, 8192, 8192) == 1024
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    free = 70 << 30
    assert chunk_rows(8192, 128_256, cuda, None, 4096, 4096) == 4096
    free = 8 << 30
    assert 1024 <= chunk_rows(8192, 128_256, cuda, None, 4096, 4096) * 8 * 128_256 / 2**20 <= 2048
    free = 0
    assert chunk_rows(8192, 128_256, cuda, None, 4096, 4096) == 128
