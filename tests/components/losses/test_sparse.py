"""Stored targets against the definition in float64: bucket by bucket, token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.losses.oracle import bucket_kl, error, gradients, logits, problem
from components.losses.oracle import loss as oracle_loss
from potstill.components.losses.chunks import LossSums
from potstill.components.losses.divergence import linear_divergence
from potstill.components.losses.sparse import SparseTargets, linear_sparse_divergence

N, V = 21, 23


def teacher_probs(x: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    return (logits(x["teacher"], x["teacher_head"], V, None) / temperature).softmax(-1)


def pack(rows: list[dict[int, float]], tails: list[float] | None) -> SparseTargets:
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    ids, probs = [i for row in rows for i in row], [p for row in rows for p in row.values()]
    return SparseTargets.from_arrays(offsets, ids, probs, tails)


def top_k(p_NV: Tensor, seed: int = 0) -> tuple[list[dict[int, float]], list[float] | None]:
    """A different number of tokens for each row, and the mass of the others."""
    generator = torch.Generator().manual_seed(seed)
    rows, tails = [], []
    for p in p_NV.float():
        k = int(torch.randint(1, 6, (), generator=generator))
        values, ids = p.topk(k)
        rows.append(dict(zip(ids.tolist(), values.tolist(), strict=True)))
        tails.append(1.0 - values.double().sum().item())
    return rows, tails


def counts(p_NV: Tensor, draws: int = 16, seed: int = 0) -> tuple[list[dict[int, float]], list[float] | None]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(p_NV.float(), draws, replacement=True, generator=generator)
    rows = []
    for row in drawn:
        ids, number = row.unique(return_counts=True)
        rows.append({int(i): float(c) / draws for i, c in zip(ids, number, strict=True)})
    return rows, None


KINDS = {"top_k": top_k, "counts": counts}


def ours(x: dict[str, Tensor], targets: SparseTargets, **options: Any) -> LossSums:
    return linear_sparse_divergence(
        x["student"], x["head"], x["labels"], targets, **({"chunk_tokens": 8} | options)
    )  # fmt: skip


@pytest.mark.parametrize("extra", ["plain", "all"])
@pytest.mark.parametrize("hard", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_equal_float64_autograd(kind: str, temperature: float, hard: float, extra: str) -> None:
    x = problem(N, V, pad=3)
    rows, tails = KINDS[kind](teacher_probs(x, temperature))
    w = torch.ones(N)
    options: dict[str, Any] = {"temperature": temperature, "hard_label_weight": hard, "vocab_size": V}
    if extra == "all":
        x["labels"][::3] = -100
        w = torch.rand(N, generator=torch.Generator().manual_seed(1))
        options |= {"weights_N": w, "student_softcap": 4.0}
    w = (w * (x["labels"] != -100)).double()

    def oracle(y: dict[str, Tensor]) -> dict[str, Tensor]:
        z = logits(y["student"], y["head"], V, options.get("student_softcap"))
        soft = (w * bucket_kl(z / temperature, rows, tails)).sum() * temperature**2
        ce = (w * torch.nn.functional.cross_entropy(z, y["labels"], reduction="none")).sum()
        q = (z / temperature).softmax(-1).detach()
        student = sum(w[n] * sum(q[n, i] for i in row) for n, row in enumerate(rows))
        teacher = sum(float(w[n]) * sum(row.values()) for n, row in enumerate(rows))
        return {
            "loss": (1 - hard) * soft + hard * ce, "divergence": soft, "cross_entropy": ce, "student_mass": student,
            "teacher_mass": torch.tensor(teacher),
        }  # type: ignore[dict-item]  # fmt: skip

    want, want_gradients = gradients(x, oracle)
    got, got_gradients = gradients(x, lambda y: ours(y, pack(rows, tails), **options))
    for name, value in want.items():
        assert getattr(got, name).item() == pytest.approx(value.item(), rel=2e-5, abs=1e-4), name
    for name in ("student", "head"):
        assert error(got_gradients[name], want_gradients[name]) < 2e-5, name


def test_many_blocks_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    x = problem(N, V)
    for kind in KINDS.values():
        targets = pack(*kind(teacher_probs(x)))
        whole, want = gradients(x, lambda y: ours(y, targets))  # noqa: B023
        with monkeypatch.context() as patch:
            patch.setattr("potstill.components.losses.rows._BLOCK", {"cpu": V})
            parts, got = gradients(x, lambda y: ours(y, targets))  # noqa: B023
        assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
        assert error(got["student"], want["student"]) < 1e-6


def test_everything_stored_is_forward_kl() -> None:
    x = problem(N, V)
    p = teacher_probs(x)
    rows = [dict(enumerate(row.tolist())) for row in p]
    want, want_gradients = gradients(x, oracle_loss)
    for tails in (None, [0.0] * N):
        got, got_gradients = gradients(x, lambda y: ours(y, pack(rows, tails)))  # noqa: B023
        assert got.loss.item() == pytest.approx(want["loss"].item(), rel=1e-5)
        assert error(got_gradients["student"], want_gradients["student"]) < 2e-5


def test_a_target_that_equals_the_student_costs_nothing() -> None:
    """Forward KL that is cross-entropy would stop at the entropy; renormalising would not see a drained support."""
    x = problem(N, V)
    p = logits(x["student"], x["head"], V, None).softmax(-1)
    rows, tails = top_k(p)
    sums, got = gradients(x, lambda y: ours(y, pack(rows, tails)))
    assert sums.divergence.item() == pytest.approx(0, abs=2e-5)
    assert got["student"].abs().max().item() < 1e-5
    assert sums.student_mass is not None and sums.teacher_mass is not None
    assert sums.student_mass.item() == pytest.approx(sums.teacher_mass.item(), rel=1e-5)


def test_the_student_is_not_renormalised_over_what_is_stored() -> None:
    """With the stored tokens' ratios right and their mass wrong, there is a loss, and every other token has a pull."""
    n, v = 3, 11
    x = {"student": torch.eye(n), "head": torch.zeros(v, n), "labels": torch.zeros(n, dtype=torch.int64)}
    x["head"][:2] = torch.tensor([2.0, 1.0])[:, None]  # q0 / q1 = e, as in the target
    e = torch.e
    rows = [{0: 0.2 * e / (1 + e), 1: 0.2 / (1 + e)}] * n
    sums, got = gradients(x, lambda y: ours(y, pack(rows, [0.8] * n)))
    assert sums.divergence.item() > 0.1
    assert (got["head"][2:] < 0).all()
    assert (got["head"][:2] > 0).all()


def test_a_tail_of_a_billionth_keeps_its_gradient() -> None:
    """1 - sum(q) would be noise here: float32 has nothing between 1 and 1 - 6e-8."""
    x = {
        "student": torch.ones(1, 1, dtype=torch.float32), "head": torch.tensor([[22.0], [0.5], [-0.5], [0.0]]),
        "labels": torch.zeros(1, dtype=torch.int64),
    }  # fmt: skip
    rows, tails = [{0: 1.0 - 1e-3}], [1e-3]

    def oracle(y: dict[str, Tensor]) -> dict[str, Tensor]:
        z = logits(y["student"], y["head"], None, None)
        log_p = z.log_softmax(-1)
        tail = log_p[:, 1:].logsumexp(-1)
        p = torch.tensor([1 - 1e-3, 1e-3], dtype=torch.float64)
        return {"loss": (torch.xlogy(p, p).sum() - p[0] * log_p[0, 0] - p[1] * tail[0])}

    want, want_gradients = gradients(x, oracle)
    got, got_gradients = gradients(x, lambda y: ours(y, pack(rows, tails)))
    assert got.loss.item() == pytest.approx(want["loss"].item(), rel=1e-4)
    assert error(got_gradients["head"], want_gradients["head"]) < 2e-5


def test_sampled_counts_give_the_full_gradient_on_average() -> None:
    x = problem(8, V)
    p = teacher_probs(x)
    _, full = gradients(x, lambda y: linear_divergence(
        y["student"], y["head"], y["labels"], teacher_NG=y["teacher"], teacher_head_VG=y["teacher_head"]))  # fmt: skip
    draws = 40
    total: Tensor = torch.zeros(())
    errors = []
    for seed in range(draws):
        targets = pack(*counts(p, 50, seed))
        _, got = gradients(x, lambda y: ours(y, targets))  # noqa: B023
        total = total + got["student"]
        errors.append(error(got["student"], full["student"]))
    mean = sum(errors) / draws
    # the error of a mean of 40 independent, unbiased estimates is that of one over the root of 40
    assert error(total / draws, full["student"]) < 2 * mean / draws**0.5


@given(seed=st.integers(0, 1000), kind=st.sampled_from(sorted(KINDS)))
def test_kl_is_never_negative(seed: int, kind: str) -> None:
    x = problem(5, V, seed)
    targets = pack(*KINDS[kind](teacher_probs(x), seed=seed))
    assert ours(x, targets).divergence.item() > -1e-5


def test_a_tail_that_rounding_took_below_zero_is_empty() -> None:
    """1 minus a float32 sum can be -2e-8, and the logarithm of that is NaN."""
    x = problem(1, V)
    p = teacher_probs(x)[0]
    row = dict(enumerate(p.float().tolist()))
    below, empty = (ours(x, pack([row], [tail])).divergence.item() for tail in (-2e-8, 0.0))
    assert below == empty
    for row, tail in (({0: 1.01}, -0.01), ({0: -0.5, 1: 1.5}, 0.0)):
        with pytest.raises(ValueError, match="negative"):
            ours(x, pack([row], [tail]))


def test_targets_stay_with_their_tokens_when_rows_are_picked() -> None:
    rows, tails = top_k(teacher_probs(problem(N, V)))
    picked = pack(rows, tails).select(torch.tensor([4, 0, 4]))
    again = pack([rows[4], rows[0], rows[4]], [tails[4], tails[0], tails[4]])  # type: ignore[index]
    for name in ("offsets", "token_ids", "probs", "tail_N"):
        assert torch.equal(getattr(picked, name), getattr(again, name)), name
    assert len(picked) == 3
    assert picked.to("cpu").row_of_entry().tolist() == [0] * len(rows[4]) + [1] * len(rows[0]) + [2] * len(rows[4])


def test_bf16_weights_keep_the_gradient() -> None:
    x = problem(N, V)
    targets = pack(*top_k(teacher_probs(x)))
    rounded = x | {k: x[k].bfloat16() for k in ("student", "head")}
    _, want = gradients({k: v.float() if v.is_floating_point() else v for k, v in rounded.items()},
                        lambda y: ours(y, targets))  # fmt: skip
    _, got = gradients(rounded, lambda y: ours(y, targets))
    assert error(got["student"], want["student"]) < 0.005
    assert error(got["head"], want["head"]) < 0.005


def test_what_is_no_target_is_refused() -> None:
    x = problem(2, V)
    with pytest.raises(ValueError, match=r"row 1 sums to 0.5000, not 1.*as tail_N"):
        ours(x, pack([{1: 1.0}, {2: 0.5}], None))
    with pytest.raises(ValueError, match=r"row 0 sums to 0\.0000"):
        ours(x, pack([{}, {2: 1.0}], None))
    with pytest.raises(ValueError, match="2 hidden states, but targets of 1 tokens"):
        ours(x, pack([{1: 1.0}], None))
    with pytest.raises(ValueError, match="token id 23 is outside the vocabulary of 23"):
        ours(x, pack([{1: 1.0}, {V: 1.0}], None))
    with pytest.raises(ValueError, match="2 token ids, 1 probs"):
        ours(x, SparseTargets.from_arrays([0, 1, 2], [1, 2], [1.0]))
