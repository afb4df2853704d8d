"""Distillation across tokenizers: bytes, spans, events against a dictionary of them in float64, real tokenizers."""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fixtures import SHARED
from potstill.components.losses.alignment import AlignmentSums, DenseTeacher, linear_alignment_divergence
from potstill.components.losses.divergence import linear_divergence
from potstill.components.losses.sparse import SparseTargets, linear_sparse_divergence
from potstill.components.losses.vocabulary import Spans, VocabMap, align, token_bytes

Tokens = list[bytes | None]
EOS = b"\xffeos"
STUDENT: Tokens = [b"a", b"b", b"c", b"ab", b"bc", EOS, b"zz", b"q", b"abc", b"a"]
TEACHER: Tokens = [b"b", b"yy", b"a", b"c", None, b"ca", b"abc", b"bb", EOS, b"aa", b"x"]
TOY = VocabMap.of(STUDENT, TEACHER)
REAL = ("deepseek-llm", "falcon", "gpt-2", "llama-spm", "phi-3")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cut(text: bytes, tokens: Tokens, seed: int) -> list[int]:
    """A random tokenization of a text that ends in the mark of its end."""
    rng, ids = generator(seed), []
    rest = text
    while rest:
        fits = [i for i, token in enumerate(tokens) if token and token[:1] != b"\xff" and rest.startswith(token)]
        ids.append(fits[int(torch.randint(len(fits), (1,), generator=rng))])
        rest = rest[len(tokens[ids[-1]] or b"") :]
    return [*ids, tokens.index(EOS)]


def problem(seed: int = 0, texts: int = 2, length: int = 7, vocab: VocabMap = TOY) -> tuple[Tensor, Tensor, Spans]:
    """float64 logits of both sides for some texts, and the spans."""
    rng, parts = generator(seed), []
    for number in range(texts):
        text = bytes(b"abc"[i] for i in torch.randint(3, (length,), generator=rng).tolist())
        ids = [cut(text, list(tokens), 10 * seed + number) for tokens in (vocab.student_tokens, vocab.teacher_tokens)]
        parts.append(align(*ids, vocab))
    spans = Spans.cat(parts)
    z_SV = 2 * torch.randn(len(spans.student_ids_S), len(vocab.student_tokens), generator=rng, dtype=torch.float64)
    z_TU = 2 * torch.randn(len(spans.teacher_ids_T), len(vocab.teacher_tokens), generator=rng, dtype=torch.float64)
    return z_SV, z_TU, spans


def eye(z: Tensor) -> Tensor:
    """The head under which hidden states are logits."""
    return torch.eye(z.shape[1], dtype=z.dtype)


def ours(z_SV: Tensor, teacher: Tensor | SparseTargets, spans: Spans, vocab: VocabMap = TOY, **o: Any) -> AlignmentSums:
    source = DenseTeacher(teacher, eye(teacher)) if isinstance(teacher, Tensor) else teacher
    return linear_alignment_divergence(z_SV, eye(z_SV), source, spans, vocab, **o)


def events(p_nV: Tensor, ids: list[int], tokens: Tokens, whole: int | None) -> tuple[Tensor, dict[int, Tensor]]:
    """Probability of a span, and of each token of the first position that is not the span. By definition."""
    columns = dict(enumerate(p_nV[0].unbind()))
    span = torch.stack([p_nV[k, i] for k, i in enumerate(ids)]).prod()
    columns[ids[0]] = columns[ids[0]] - span if len(ids) > 1 else span * 0
    if whole is not None and whole != ids[0]:
        span = span + columns[whole]
        columns[whole] = columns[whole] * 0
    return span, columns


def oracle(
    z_SV: Tensor, z_TU: Tensor, spans: Spans, vocab: VocabMap, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL and sorted distance of each span, T^2 included; every token of either side has a counterpart or not."""
    pairs = list(zip(vocab.student_M.tolist(), vocab.teacher_M.tolist(), strict=True))
    kls, distances = [], []
    ends = [[0, *x.tolist()] for x in (spans.student_ends_P, spans.teacher_ends_P)]
    for number, ((a, b), (c, d)) in enumerate(zip(*(pairwise(x) for x in ends), strict=True)):
        whole = pairs[int(spans.whole_P[number])] if spans.whole_P[number] >= 0 else (None, None)
        q = (z_SV[a:b] / temperature).softmax(-1)
        p = (z_TU[c:d] / temperature).softmax(-1)
        q_span, q_of = events(q, spans.student_ids_S[a:b].tolist(), list(vocab.student_tokens), whole[0])
        p_span, p_of = events(p, spans.teacher_ids_T[c:d].tolist(), list(vocab.teacher_tokens), whole[1])
        q_rest = [q_of[i] for i in vocab.student_rest.tolist()]
        p_rest = [p_of[i] for i in vocab.teacher_rest.tolist()]
        both = [(p_span, q_span)] + [(p_of[j], q_of[i]) for i, j in pairs]
        both.append((sum(p_rest, p_span * 0), sum(q_rest, q_span * 0)))
        assert [float(sum(x.detach() for x in side)) for side in zip(*both, strict=True)] == pytest.approx([1.0, 1.0])
        kls.append(sum((x * (x / y).log() for x, y in both if x.detach() > 1e-12), q_span * 0))
        width = max(len(q_rest), len(p_rest))
        tops = [
            sorted(x, key=lambda value: float(value.detach()), reverse=True) + [q_span * 0] * (width - len(x))
            for x in (q_rest, p_rest)
        ]
        distances.append(sum(((x - y).abs() for x, y in zip(*tops, strict=True)), q_span * 0))
    return torch.stack(kls) * temperature**2, torch.stack(distances) * temperature**2


def stored(p_TU: Tensor, k: int | None, draws: int = 0, seed: int = 0) -> SparseTargets:
    """Top-k with a tail, everything (k None), or sampled counts."""
    rows, tails = [], []
    for p_U in p_TU:
        if draws:
            counts_U = torch.multinomial(p_U, draws, replacement=True, generator=generator(seed)).bincount()
            rows.append({i: float(counts_U[i]) / draws for i in counts_U.nonzero()[:, 0].tolist()})
        else:
            ids = p_U.topk(k or len(p_U)).indices.tolist()
            rows.append({i: float(p_U[i]) for i in ids})
        tails.append(max(0.0, 1.0 - sum(rows[-1].values())))
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    ids, probs = [i for row in rows for i in row], [x for row in rows for x in row.values()]
    targets = SparseTargets.from_arrays(offsets, ids, probs, None if draws or k is None else tails)
    # float64, so that comparisons need no tolerance for single precision
    tail_N = None if targets.tail_N is None else torch.tensor(tails, dtype=torch.float64)
    return SparseTargets(targets.offsets, targets.token_ids, torch.tensor(probs, dtype=torch.float64), tail_N)


# -- bytes, pairs, spans


def test_bytes_of_both_kinds_of_tokenizer() -> None:
    added = [{"id": 4, "content": "<eos>", "special": True}, {"id": 6, "content": "ø", "special": False}]
    level = {"model": {"vocab": {"a": 0, "Ġa": 1, "Ċ": 2, "\u00c3\u00b8": 3}}, "decoder": {"type": "ByteLevel"}}
    assert token_bytes(level | {"added_tokens": added}, {"eos": 4}) == [
        b"a", b" a", b"\n", "ø".encode(), EOS, None, "ø".encode(),
    ]  # fmt: skip
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}
    piece = {"model": {"vocab": {"<s>": 0, "<0x0A>": 1, "▁a": 2, "é": 3}}, "decoder": decoder}
    assert token_bytes(piece | {"added_tokens": [{"id": 0, "content": "<s>", "special": True}]}) == [
        b"\xff<s>", b"\n", b" a", "é".encode(),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="are not known"):
        token_bytes({"model": {"vocab": {"a": 0}}, "decoder": {"type": "WordPiece"}})
    with pytest.raises(ValueError, match="role 'eos' is id 9"):
        token_bytes(level, {"eos": 9})


def test_pairs_and_what_is_left() -> None:
    found = {STUDENT[i]: (i, j) for i, j in zip(TOY.student_M.tolist(), TOY.teacher_M.tolist(), strict=True)}
    assert found == {b"a": (9, 2), b"b": (1, 0), b"c": (2, 3), EOS: (5, 8), b"abc": (8, 6)}
    assert TOY.student_rest.tolist() == [0, 3, 4, 6, 7] and TOY.teacher_rest.tolist() == [1, 4, 5, 7, 9, 10]
    assert TOY.share == 0.5
    same = VocabMap.of(TEACHER, TEACHER)  # ids that are no tokens, and doubles, too
    assert same.share == 1.0 and not len(same.student_rest) and not len(same.teacher_rest)


def test_golden_spans() -> None:
    # ab|c|a|eos  against  a|b|ca|eos: cuts in common after ab and abca
    spans = align([3, 2, 0, 5], [2, 0, 5, 8], TOY)
    assert spans.student_ends_P.tolist() == [1, 3, 4] and spans.teacher_ends_P.tolist() == [2, 3, 4]
    assert [TOY.student_M[i].item() if i >= 0 else None for i in spans.whole_P] == [None, None, 5]
    both = Spans.cat([spans, spans])
    assert both.student_ends_P.tolist() == [1, 3, 4, 5, 7, 8] and both.teacher_ends_P.tolist() == [2, 3, 4, 6, 7, 8]
    assert not len(align([], [], TOY).weight_P)


@given(st.text("abc", max_size=20), st.integers(0, 50))
def test_spans_have_the_same_bytes_and_no_inner_cut(text: str, seed: int) -> None:
    ids = cut(text.encode(), STUDENT, seed), cut(text.encode(), TEACHER, seed + 1)
    spans = align(*ids, TOY)
    spelled = b""
    ends = [[0, *x.tolist()] for x in (spans.student_ends_P, spans.teacher_ends_P)]
    for (a, b), (c, d) in zip(*(pairwise(x) for x in ends), strict=True):
        left, right = [STUDENT[i] or b"" for i in ids[0][a:b]], [TEACHER[i] or b"" for i in ids[1][c:d]]
        assert b"".join(left) == b"".join(right)
        inner = [{len(b"".join(side[:k])) for k in range(1, len(side))} for side in (left, right)]
        assert not inner[0] & inner[1]
        spelled += b"".join(left)
    assert spelled == text.encode() + EOS and (ends[0][-1], ends[1][-1]) == (len(ids[0]), len(ids[1]))


def test_a_space_of_one_side_and_texts_that_differ() -> None:
    vocab = VocabMap.of([b" a", b" ", b"b"], [b"a", b"b", b" b"])
    for student in ([0, 2], [1, 2]):
        text = [0, 1] if student[0] == 0 else [1]
        spans = align(student, text, vocab)
        assert spans.weight_P.tolist() == [0.0, *[1.0] * (len(spans.weight_P) - 1)]
        assert spans.student_ends_P[-1] == 2 and spans.teacher_ends_P[-1] == len(text)
    with pytest.raises(ValueError, match="differ from byte 1 on: b'b' and b'a'"):
        align([0, 1], [2, 2], TOY)
    with pytest.raises(ValueError, match="differ from byte 1 on"):
        align([0], [2, 2], TOY)
    with pytest.raises(ValueError, match=r"the teacher's vocabulary of .* has no token of id 4"):
        align([0], [4], TOY)
    with pytest.raises(ValueError, match=r"the student's vocabulary of .* has no token of id 10"):
        align([10], [2], TOY)


# -- the loss


def test_golden_span_of_two_teacher_tokens() -> None:
    vocab = VocabMap.of([b"ab", b"a"], [b"a", b"b"])  # b has no counterpart, nor has ab
    spans = align([0], [0, 1], vocab)
    q, p = torch.tensor([[0.7, 0.3]]).double(), torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()
    got = ours(q.log(), p.log(), spans, vocab)
    # span: 0.9 x 0.8 against 0.7; a, not followed by b: 0.18 against 0.3; b (0.1): the student has no token for it
    want = 0.8 * math.log(0.8 / 0.7) + 0.2 * math.log(0.2 / 0.3)
    assert got.loss.item() == pytest.approx(want) == got.divergence.item()
    assert got.sorted_distance.item() == 0 and got.spans.item() == 1
    vocab = VocabMap.of([b"ab", b"a", b"z"], [b"a", b"b"])
    q = torch.tensor([[0.6, 0.3, 0.1]]).double()
    got = ours(q.log(), p.log(), align([0], [0, 1], vocab), vocab, sorted_weight=0.5)
    want = 0.72 * math.log(0.72 / 0.6) + 0.18 * math.log(0.18 / 0.3) + 0.1 * math.log(0.1 / 0.1)
    assert got.divergence.item() == pytest.approx(want)
    assert got.sorted_distance.item() == pytest.approx(0.0, abs=1e-7)
    q = torch.tensor([[0.4, 0.3, 0.3]]).double()
    got = ours(q.log(), p.log(), align([0], [0, 1], vocab), vocab, sorted_weight=0.5)
    assert got.sorted_distance.item() == pytest.approx(0.2)
    assert got.loss.item() == pytest.approx(got.divergence.item() + 0.1)


def test_ids_that_share_their_bytes() -> None:
    # a is ids 0 and 1 on both sides, paired one to one; c has no counterpart, so 0.8 is left of p
    vocab = VocabMap.of([b"a", b"a", b"b"], [b"a", b"a", b"b", b"c"])
    q, p = torch.tensor([[0.2, 0.5, 0.3]]).double(), torch.tensor([[0.3, 0.1, 0.4, 0.2]]).double()
    apart = 0.375 * math.log(0.375 / 0.2) + 0.125 * math.log(0.125 / 0.5) + 0.5 * math.log(0.5 / 0.3)
    one = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3)
    # the student has taken the usual id: what it gives the other is not the teacher's span
    other = 0.5 * math.log(0.5 / 0.5) + 0.5 * math.log(0.5 / 0.3)
    for student, teacher, want in ((0, 0, apart), (1, 1, apart), (0, 1, one), (1, 0, other)):
        got = ours(q.log(), p.log(), align([student], [teacher], vocab), vocab)
        assert got.loss.item() == pytest.approx(want, rel=1e-5), (student, teacher)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 128])
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradients_against_the_definition(temperature: float, chunk_tokens: int, seed: int) -> None:
    z_SV, z_TU, spans = problem(seed, texts=3)
    weights_P = torch.rand(len(spans.weight_P), generator=generator(seed), dtype=torch.float64)
    z, y = z_SV.clone().requires_grad_(), z_SV.clone().requires_grad_()
    got = ours(
        z, z_TU, spans, temperature=temperature, chunk_tokens=chunk_tokens, sorted_weight=0.3, weights_P=weights_P
    )
    got.loss.backward()
    kl_P, distance_P = oracle(y, z_TU, spans, TOY, temperature)
    (weights_P * (kl_P + 0.3 * distance_P)).sum().backward()
    assert got.divergence.item() == pytest.approx((weights_P @ kl_P).item(), rel=1e-6)
    assert got.sorted_distance.item() == pytest.approx((weights_P @ distance_P).item(), rel=1e-6)
    assert got.loss.item() == pytest.approx(got.divergence.item() + 0.3 * got.sorted_distance.item())
    assert got.spans.item() == pytest.approx(float(weights_P.sum()))
    assert z.grad is not None and y.grad is not None
    assert float((z.grad - y.grad).norm() / y.grad.norm()) < 1e-6


def test_single_precision_and_both_gradients_of_the_head() -> None:
    z_SV, z_TU, spans = problem(1, texts=4)
    hidden_SH, head_VH = torch.randn(len(z_SV), 6, generator=generator(1)), torch.randn(10, 6, generator=generator(2))
    padded_VH = torch.cat([head_VH, 9 * torch.randn(3, 6, generator=generator(3))]).requires_grad_()
    hidden_SH.requires_grad_()
    teacher = DenseTeacher(z_TU.float(), eye(z_TU.float()))
    got = linear_alignment_divergence(hidden_SH, padded_VH, teacher, spans, TOY, chunk_tokens=4)
    (2 * got.loss).backward()
    hidden, head = hidden_SH.detach().double().requires_grad_(), head_VH.double().requires_grad_()
    want = sum(x.sum() for x in oracle(hidden @ head.T, z_TU, spans, TOY))
    assert isinstance(want, Tensor)
    (2 * want).backward()
    assert got.loss.item() == pytest.approx(want.item(), rel=1e-5)
    assert hidden_SH.grad is not None and padded_VH.grad is not None and hidden.grad is not None
    assert float((hidden_SH.grad - hidden.grad).norm() / hidden.grad.norm()) < 2e-5
    assert head.grad is not None and not padded_VH.grad[10:].any()
    assert float((padded_VH.grad[:10] - head.grad).norm() / head.grad.norm()) < 2e-5


@pytest.mark.parametrize("kind", ["dense", "top", "counts"])
def test_finite_differences(kind: str) -> None:
    z_SV, z_TU, spans = problem(2, length=5)
    p_TU = z_TU.softmax(-1)
    teacher = {"dense": z_TU, "top": stored(p_TU, 4), "counts": stored(p_TU, None, draws=20)}[kind]
    hidden_SH = torch.randn(len(z_SV), 3, generator=generator(1), dtype=torch.float64, requires_grad=True)
    head_VH = torch.randn(10, 3, generator=generator(2), dtype=torch.float64, requires_grad=True)
    source = DenseTeacher(teacher, eye(teacher)) if isinstance(teacher, Tensor) else teacher

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        return linear_alignment_divergence(hidden, head, source, spans, TOY, temperature=1.5, chunk_tokens=3).loss

    assert torch.autograd.gradcheck(loss, (hidden_SH, head_VH), rtol=1e-4)


def same_text(tokens: int = 30, vocab: int = 17) -> tuple[VocabMap, Spans, Tensor, Tensor, Tensor]:
    """One tokenizer on both sides, with a double and an id that is no token; hidden states of both."""
    own: Tokens = [bytes([65 + i]) for i in range(vocab - 2)] + [b"A", None]
    same = VocabMap.of(own, own)
    ids = torch.randint(vocab - 1, (tokens,), generator=generator(0))
    student, head = torch.randn(tokens, 5, generator=generator(1)), torch.randn(vocab, 5, generator=generator(2))
    teacher = student + torch.randn(tokens, 5, generator=generator(3))
    return same, align(ids.tolist(), ids.tolist(), same), student, head, teacher


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_tokenizer_is_plain_kl(temperature: float) -> None:
    vocab, spans, student, head, teacher = same_text()
    plain, mine = student.clone().requires_grad_(), student.clone().requires_grad_()
    want = linear_divergence(
        plain, head, spans.student_ids_S, teacher_NG=teacher, teacher_head_VG=head, temperature=temperature
    )
    got = linear_alignment_divergence(mine, head, DenseTeacher(teacher, head), spans, vocab, temperature=temperature)
    assert got.loss.item() == pytest.approx(want.loss.item(), rel=1e-5)
    assert got.sorted_distance.item() == 0 and got.spans.item() == 30
    want.loss.backward()
    got.loss.backward()
    assert plain.grad is not None and mine.grad is not None
    assert float((plain.grad - mine.grad).norm() / plain.grad.norm()) < 2e-5
    equal = linear_alignment_divergence(teacher, head, DenseTeacher(teacher, head), spans, vocab)
    assert equal.loss.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("case", [{"k": 5}, {"k": 1}, {"k": None, "draws": 50}, {"k": None}])
def test_one_tokenizer_with_stored_targets_is_the_sparse_divergence(case: dict[str, Any]) -> None:
    vocab, spans, student, head, teacher = same_text()
    exact = stored((teacher.double() @ head.double().T).softmax(-1), **case)
    tail_N = None if exact.tail_N is None else exact.tail_N.float()
    targets = SparseTargets(exact.offsets, exact.token_ids, exact.probs.float(), tail_N)
    plain, mine = student.clone().requires_grad_(), student.clone().requires_grad_()
    want = linear_sparse_divergence(plain, head, spans.student_ids_S, targets)
    got = linear_alignment_divergence(mine, head, targets, spans, vocab, chunk_tokens=7)
    assert got.loss.item() == pytest.approx(want.loss.item(), rel=1e-5)
    want.loss.backward()
    got.loss.backward()
    assert plain.grad is not None and mine.grad is not None
    assert float((plain.grad - mine.grad).norm() / plain.grad.norm()) < 2e-5


@pytest.mark.parametrize("seed", range(3))
def test_a_store_of_everything_is_the_teacher(seed: int) -> None:
    z_SV, z_TU, spans = problem(seed, texts=3)
    want = ours(z_SV, z_TU, spans)
    for k in (None, len(TEACHER)):  # without a tail, and with one that is empty
        got = ours(z_SV, stored(z_TU.softmax(-1), k), spans)
        assert [x.item() for x in got] == pytest.approx([x.item() for x in want], rel=1e-6)


@given(st.integers(0, 300), st.integers(1, 11))
@settings(max_examples=40)
def test_a_top_k_never_claims_more_than_the_teacher(seed: int, k: int) -> None:
    """Fewer events are a coarser view of the same two distributions, whose KL is smaller (data processing)."""
    z_SV, z_TU, spans = problem(seed)
    whole, part = ours(z_SV, z_TU, spans), ours(z_SV, stored(z_TU.softmax(-1), k), spans)
    assert -1e-9 <= part.divergence.item() <= whole.divergence.item() + 1e-9
    assert 0 <= part.sorted_distance.item() <= whole.sorted_distance.item() + 1e-9


@given(st.integers(0, 500))
@settings(max_examples=40)
def test_never_negative_and_blind_to_the_order_of_either_vocabulary(seed: int) -> None:
    z_SV, z_TU, spans = problem(seed)
    got = ours(z_SV, z_TU, spans)
    assert got.divergence.item() >= -1e-9 and got.sorted_distance.item() >= 0
    order = torch.randperm(len(TEACHER), generator=generator(seed))
    back = order.argsort()
    moved = VocabMap.of(STUDENT, [TEACHER[i] for i in order])
    ids = [align_ids.tolist() for align_ids in (spans.student_ids_S, back[spans.teacher_ids_T])]
    again = ours(z_SV, z_TU[:, order], align(ids[0], ids[1], moved), moved)
    assert [x.item() for x in again] == pytest.approx([x.item() for x in got], rel=1e-9)


@given(st.integers(0, 200))
@settings(max_examples=30)
def test_zero_where_a_permuted_tokenizer_agrees(seed: int) -> None:
    order = torch.randperm(len(STUDENT), generator=generator(seed))
    vocab = VocabMap.of(STUDENT, [STUDENT[i] for i in order])
    ids, partner = cut(b"abcabca", STUDENT, seed), dict(vocab.pairs.keys())
    spans = align(ids, [partner[i] for i in ids], vocab)
    z_SV = torch.randn(len(ids), len(STUDENT), generator=generator(seed), dtype=torch.float64)
    # each pair has one logit, wherever the permutation put it
    z_TU = torch.empty_like(z_SV)
    z_TU[:, vocab.teacher_M] = z_SV[:, vocab.student_M]
    z = z_SV.clone().requires_grad_()
    got = ours(z, z_TU, spans, vocab)
    got.loss.backward()
    assert z.grad is not None
    assert got.loss.item() == pytest.approx(0.0, abs=1e-9) and float(z.grad.norm()) < 1e-9
    assert len(spans.weight_P) == len(ids)


def test_sampled_counts_are_the_teacher_on_average() -> None:
    z_SV, z_TU, spans = problem(3, texts=1)
    z, gradients = z_SV.clone().requires_grad_(), []
    (want,) = torch.autograd.grad(ours(z, z_TU, spans, sorted_weight=0.0).loss, z)
    p_TU = z_TU.softmax(-1)
    for seed in range(200):
        loss = ours(z, stored(p_TU, None, draws=20, seed=seed), spans, sorted_weight=0.0).loss
        gradients.append(torch.autograd.grad(loss, z)[0])
    assert float((torch.stack(gradients).mean(0) - want).norm() / want.norm()) < 0.1


def test_descent_reaches_a_teacher_of_another_tokenizer() -> None:
    z_SV, z_TU, spans = problem(4)
    z = z_SV.clone().requires_grad_()
    start, optimizer = ours(z, z_TU, spans).divergence.item(), torch.optim.Adam([z], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        ours(z, z_TU, spans).loss.backward()
        optimizer.step()
    assert ours(z, z_TU, spans).divergence.item() < 0.02 * start


def test_certain_models_stay_finite() -> None:
    z_SV, z_TU, spans = problem(5, texts=4)
    for scale in (100.0, 1000.0):
        z = (scale * z_SV.float()).requires_grad_()
        for teacher in (scale * z_TU.float(), stored((scale * z_TU).softmax(-1), 3)):
            got = ours(z, teacher, spans)
            (gradient,) = torch.autograd.grad(got.loss, z)
            assert math.isfinite(got.loss.item()) and bool(gradient.isfinite().all())
    certain = torch.full_like(z_SV, -500.0).scatter_(1, spans.student_ids_S[:, None], 500.0).float().requires_grad_()
    (gradient,) = torch.autograd.grad(ours(certain, z_TU.float(), spans).loss, certain)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_hard_labels_are_the_students_own_tokens(temperature: float) -> None:
    z_SV, z_TU, spans = problem(seed=4)
    z_SV.requires_grad_()
    kls, distances = oracle(z_SV, z_TU, spans, TOY, temperature)
    hard = torch.nn.functional.cross_entropy(z_SV, spans.student_ids_S, reduction="sum")
    want = 0.7 * (kls + distances).sum() + 0.3 * hard
    (want_gradient,) = torch.autograd.grad(want, z_SV)
    found = ours(z_SV, z_TU, spans, temperature=temperature, hard_label_weight=0.3, chunk_tokens=3)
    assert found.loss.item() == pytest.approx(want.item(), rel=1e-9)
    assert found.cross_entropy.item() == pytest.approx(hard.item(), rel=1e-9)
    found.loss.backward()
    assert z_SV.grad is not None
    torch.testing.assert_close(z_SV.grad, want_gradient, atol=1e-9, rtol=1e-7)
    with pytest.raises(ValueError, match=r"hard_label_weight is 1\.5"):
        ours(z_SV, z_TU, spans, hard_label_weight=1.5)


def test_no_gradient_when_none_is_wanted_and_weights_of_zero() -> None:
    z_SV, z_TU, spans = problem(6)
    z = z_SV.clone().requires_grad_()
    with torch.no_grad():
        assert not ours(z, z_TU, spans).loss.requires_grad
    nothing = ours(z, z_TU, spans, weights_P=torch.zeros(len(spans.weight_P)))
    nothing.loss.backward()
    assert z.grad is not None and not z.grad.any() and nothing.spans.item() == 0
    empty = ours(z_SV[:0], z_TU[:0], align([], [], TOY))
    assert not any(x.item() for x in empty)


def test_what_does_not_fit_is_refused() -> None:
    z_SV, z_TU, spans = problem(7)
    with pytest.raises(ValueError, match="rows"):
        ours(z_SV[1:], z_TU, spans)
    with pytest.raises(ValueError, match="student's head has 9 rows"):
        ours(z_SV[:, :9], z_TU, spans)
    with pytest.raises(ValueError, match="teacher's head has 10 rows"):
        ours(z_SV, z_TU[:, :10], spans)
    with pytest.raises(ValueError, match="temperature 0"):
        ours(z_SV, z_TU, spans, temperature=0.0)
    with pytest.raises(ValueError, match="weights"):
        ours(z_SV, z_TU, spans, weights_P=torch.ones(1))
    part = stored(z_TU.softmax(-1), 2)
    with pytest.raises(ValueError, match="not 1"):
        ours(z_SV, SparseTargets(part.offsets, part.token_ids, part.probs), spans)


# -- real tokenizers

TEXTS = (
    "Hello, world! It's 12345 degrees; naïve café - 東京 😀.\n\n\tdef f(x):\n        return x ** 2\n",
    "Turn the kitchen light off, please.",
    '{"name": "set_timer", "arguments": {"minutes": 10}}',
)


@cache
def real(name: str) -> tuple[Any, Tokens]:
    path = SHARED / "tokenizers" / name / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    from tokenizers import Tokenizer

    config = json.loads(path.with_name("tokenizer_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(path))
    tokens = token_bytes(json.loads(path.read_text()), {"eos": tokenizer.token_to_id(config["eos_token"])})
    return tokenizer, tokens


@pytest.mark.parametrize("name", REAL)
def test_real_tokens_spell_their_text(name: str) -> None:
    tokenizer, tokens = real(name)
    assert len(tokens) == tokenizer.get_vocab_size()
    for text in TEXTS:
        spelled = b"".join(tokens[i] or b"?" for i in tokenizer.encode(text, add_special_tokens=False).ids)
        assert spelled.removeprefix(b" ") == text.encode()


def test_of_ids_with_the_same_bytes_the_one_that_texts_give_is_paired() -> None:
    (_, llama), (deepseek, deepseek_tokens), (gpt, gpt_tokens) = real("llama-spm"), real("deepseek-llm"), real("gpt-2")
    vocab = VocabMap.of(llama, gpt_tokens)
    assert llama[int(vocab.student_M[vocab.pair_of[b"A"]])] == b"A" and llama.count(b"A") == 2
    assert int(vocab.student_M[vocab.pair_of[b"A"]]) == real("llama-spm")[0].token_to_id("A")
    vocab = VocabMap.of(deepseek_tokens, gpt_tokens)
    # an added token of deepseek's, which its model's vocabulary has as well
    for text in ("\u00f8", "A"):
        pair = deepseek.encode(text).ids, gpt.encode(text).ids
        assert (pair[0][-1], pair[1][0]) in vocab.pairs, text


PAIRS = [(a, b) for a in REAL for b in REAL if a != b]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_real_pairs_align(student: str, teacher: str) -> None:
    (own, own_tokens), (other, other_tokens) = real(student), real(teacher)
    vocab = VocabMap.of(own_tokens, other_tokens)
    assert 0.1 < vocab.share <= 1.0  # every piece of llama-spm is one of phi-3
    assert vocab.pair_of[EOS] >= 0
    for text in TEXTS:
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for tokenizer in (own, other)]
        spans = align(*ids, vocab)
        assert spans.student_ends_P[-1] == len(ids[0]) and spans.teacher_ends_P[-1] == len(ids[1])
        assert len(spans.weight_P) > 0.3 * min(map(len, ids))
        # both of SentencePiece's kind put a space before the text, the others do not
        assert int((spans.weight_P == 0).sum()) == len({student, teacher} & {"llama-spm", "phi-3"}) % 2


@pytest.mark.parametrize(("student", "teacher"), [("gpt-2", "llama-spm"), ("phi-3", "llama-spm"), ("gpt-2", "gpt-2")])
def test_real_pairs_teach(student: str, teacher: str) -> None:
    (own, own_tokens), (other, other_tokens) = real(student), real(teacher)
    vocab = VocabMap.of(own_tokens, other_tokens)
    ids = [tokenizer.encode(TEXTS[1], add_special_tokens=False).ids for tokenizer in (own, other)]
    spans = align(*ids, vocab)
    hidden = torch.randn(len(ids[0]), 8, generator=generator(0), requires_grad=True)
    head = torch.randn(len(own_tokens), 8, generator=generator(1))
    source = DenseTeacher(
        torch.randn(len(ids[1]), 8, generator=generator(2)), torch.randn(len(other_tokens), 8, generator=generator(3))
    )
    got = linear_alignment_divergence(hidden, head, source, spans, vocab)
    (gradient,) = torch.autograd.grad(got.loss, hidden)
    assert 0 < got.divergence.item() < math.inf and 0 < float(gradient.norm()) < math.inf
    p_TU = (source.hidden_TG @ source.head_UG.T).double().softmax(-1)
    for targets in (stored(p_TU, 32), stored(p_TU, None, draws=50)):
        assert 0 < linear_alignment_divergence(hidden, head, targets, spans, vocab).divergence.item() < math.inf
    if student == teacher:
        plain = linear_divergence(
            hidden, head, spans.student_ids_S, teacher_NG=source.hidden_TG, teacher_head_VG=source.head_UG
        )
        assert got.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
