"""Distillation between different tokenizers, which split the same bytes into different tokens.

Shapes: S student tokens, T teacher tokens, P spans, V student's vocabulary, U teacher's, M matched pairs of tokens,
H student's hidden size, G teacher's; n tokens of a chunk. Row k of hidden states or targets predicts token k.

At the start of a span both models have read the same bytes, so their next-token distributions there are compared. The
events are:

- the span itself, with the product of its tokens' probabilities on each side (chain rule). If a side has several tokens
  for the span, the first token keeps the rest of its probability: that token, followed by something else. A matched
  token that is the whole span counts as the span too. So the events still sum to 1;
- each pair of tokens with the same bytes in both vocabularies;
- one bucket for all tokens without a counterpart. Within the bucket, the L1 distance of sorted probabilities is used.

The events form a KL: it is never negative, 0 if all events agree, and the plain KL if the tokenizers are the same. If
the student has no token for the bucket, the teacher's mass there is left out, and the rest is renormalised.

Sources: Boizard et al. 2024, ULD (sorted probabilities); TRL's GOLD (spans, and pairs by exact match). In GOLD the
merged span scales the whole distribution; here its probability is taken from its first token only, so no mass is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from potstill.components.losses.sparse import SparseTargets
from potstill.components.losses.vocabulary import Spans, VocabMap

__all__ = ["AlignmentSums", "DenseTeacher", "linear_alignment_divergence"]

_NONE = -1e30  # log of probability 0; finite, so that 0 times it is 0, and its gradient is not NaN
# log-probabilities closer to 0 than this are treated as this value, so that 1 - p does not round to 0
_LEAST = -1e-7


@dataclass(frozen=True)
class DenseTeacher:
    """The teacher's last hidden states at its own tokens, and its output embedding."""

    hidden_TG: Tensor
    head_UG: Tensor

    def __len__(self) -> int:
        return len(self.hidden_TG)


class AlignmentSums(NamedTuple):
    """Sums over spans, in nats, with weights applied. `loss` carries the gradient.

    Divide once by the `spans` of the global batch. `cross_entropy` is over the student's tokens, at temperature 1.
    """

    loss: Tensor
    divergence: Tensor
    sorted_distance: Tensor
    cross_entropy: Tensor
    spans: Tensor


class _Side(NamedTuple):
    """One side's tokens of a chunk of spans: their ids, the span of each token, and the first token of each span."""

    ids_n: Tensor
    span_n: Tensor
    first_P: Tensor
    rows: slice


class _Given(NamedTuple):
    """Log-probabilities, and which of them are known (None: all). `tail_P` is the mass of the others."""

    log_PV: Tensor
    log_own_n: Tensor
    known_PV: Tensor | None = None
    known_own_n: Tensor | None = None
    tail_P: Tensor | None = None


def linear_alignment_divergence(
    student_SH: Tensor,
    head_VH: Tensor,
    teacher: DenseTeacher | SparseTargets,
    spans: Spans,
    vocab: VocabMap,
    *,
    temperature: float = 1.0,
    sorted_weight: float = 1.0,
    hard_label_weight: float = 0.0,
    weights_P: Tensor | None = None,
    chunk_tokens: int = 128,
) -> AlignmentSums:
    """Sum over spans of w T^2 (KL of the events + sorted_weight x L1 of the sorted rest); see the module's docstring.

    Logits exist one chunk at a time, in fp32 (float64 if given so), and gradients are computed in the forward pass.

    Args:
        student_SH: the student's last hidden states, one row per student token of `spans`.
        head_VH: the student's output embedding; rows beyond the vocabulary are padding.
        teacher: hidden states, one row per teacher token; or stored targets, made at temperature T. With a tail, tokens
            and spans that are not stored join the bucket, and as many sorted probabilities of the rest are compared as
            are stored. With sampled counts, the KL is unbiased, and the sorted distance is not.
        spans: spans from `align`, or several joined by `Spans.cat`.
        vocab: the map that the spans were made with.
        sorted_weight: weight of the sorted distance.
        hard_label_weight: weight of the cross-entropy on the student's tokens, in spans of any weight; the divergence
            has the rest.
        weights_P: weight per span, multiplied with the spans' own.

    Raises:
        ValueError: shapes do not match, or a number is outside its range.
    """
    _require(student_SH, head_VH, teacher, spans, vocab, temperature, sorted_weight, weights_P, chunk_tokens)
    if not 0.0 <= hard_label_weight <= 1.0:
        raise ValueError(f"hard_label_weight is {hard_label_weight}; it must be in [0, 1]")
    device = student_SH.device
    spans, vocab = Spans(*(x.to(device) for x in spans)), vocab.to(device)
    weight_P = spans.weight_P if weights_P is None else spans.weight_P * weights_P.to(device)
    work = _Work(
        teacher, spans, vocab, temperature, sorted_weight, hard_label_weight, weight_P, chunk_tokens,
        torch.is_grad_enabled(),
    )  # fmt: skip
    head_VH = head_VH[: len(vocab.student_tokens)]
    loss, *parts = _Fused.apply(student_SH, head_VH, work)  # type: ignore[no-untyped-call]
    divergence, distance, cross_entropy = parts
    return AlignmentSums(loss, divergence, distance, cross_entropy, weight_P.sum())


def _require(
    student_SH: Tensor, head_VH: Tensor, teacher: DenseTeacher | SparseTargets, spans: Spans, vocab: VocabMap,
    temperature: float, sorted_weight: float, weights_P: Tensor | None, chunk_tokens: int,
) -> None:  # fmt: skip
    tokens = len(spans.student_ids_S), len(spans.teacher_ids_T)
    if (len(student_SH), len(teacher)) != tokens:
        raise ValueError(f"spans of {tokens[0]} and {tokens[1]} tokens, but {len(student_SH)} and {len(teacher)} rows")
    sizes = {"student": (len(head_VH), len(vocab.student_tokens))}
    if isinstance(teacher, DenseTeacher):
        sizes["teacher"] = len(teacher.head_UG), len(vocab.teacher_tokens)
    else:
        teacher.require(tokens[1], len(vocab.teacher_tokens))
    for who, (rows, size) in sizes.items():
        if rows < size:
            raise ValueError(f"the {who}'s head has {rows} rows, but its vocabulary {size} tokens")
    if not temperature > 0 or not sorted_weight >= 0 or chunk_tokens < 1:
        raise ValueError(
            f"temperature {temperature}, sorted_weight {sorted_weight}, chunk_tokens {chunk_tokens}: "
            "temperature must be above 0, sorted_weight 0 or more, and chunk_tokens at least 1"
        )
    if weights_P is not None and weights_P.shape != spans.weight_P.shape:
        raise ValueError(f"weights of shape {tuple(weights_P.shape)} for {len(spans.weight_P)} spans")


@dataclass(frozen=True)
class _Work:
    """What one call does, without the tensors that get a gradient."""

    teacher: DenseTeacher | SparseTargets
    spans: Spans
    vocab: VocabMap
    temperature: float
    sorted_weight: float
    hard: float
    weight_P: Tensor
    chunk_tokens: int
    gradients: bool

    def chunks(self) -> Iterator[tuple[slice, _Side, _Side]]:
        """Whole spans, with at most `chunk_tokens` student tokens per chunk; a longer span is a chunk of its own."""
        spans = self.spans
        student, teacher = spans.student_ends_P.tolist(), spans.teacher_ends_P.tolist()
        first = 0
        while first < len(student):
            begin, last = student[first - 1] if first else 0, first + 1
            while last < len(student) and student[last] - begin <= self.chunk_tokens:
                last += 1
            sides = (
                _side(spans.student_ids_S, spans.student_ends_P, begin, first, last),
                _side(spans.teacher_ids_T, spans.teacher_ends_P, teacher[first - 1] if first else 0, first, last),
            )
            yield slice(first, last), *sides
            first = last

    def score(self, z_nV: Tensor, chunk: slice, student: _Side, teacher: _Side) -> tuple[Tensor, Tensor]:
        """KL and sorted distance of each span, times T^2, from the student's logits over T."""
        log_nV = F.log_softmax(z_nV, dim=1)
        own = _Given(log_nV[student.first_P], log_nV.gather(1, student.ids_n[:, None])[:, 0])
        with torch.no_grad():
            given = self._given(teacher, z_nV.dtype)
            theirs = _events(given, teacher, self.spans.whole_P[chunk], self.vocab.teacher_M)
        ours = _events(own, student, self.spans.whole_P[chunk], self.vocab.student_M)
        kl_P, has_P = _kl(ours, theirs, given.tail_P, self.vocab)
        distance_P = torch.zeros_like(kl_P)
        if self.sorted_weight:
            # a student without tokens for the bucket cannot learn it
            distance_P = torch.where(has_P, _sorted_distance(ours, theirs, self.vocab), 0.0)
        return kl_P * self.temperature**2, distance_P * self.temperature**2

    def _given(self, side: _Side, dtype: torch.dtype) -> _Given:
        """The teacher's log-probabilities at the first tokens of the spans, and those of all tokens of the spans."""
        size = len(self.vocab.teacher_tokens)
        if isinstance(self.teacher, DenseTeacher):
            head_UG = self.teacher.head_UG[:size].to(dtype)
            log_nU = F.log_softmax(F.linear(self.teacher.hidden_TG[side.rows].to(dtype), head_UG) / self.temperature, 1)
            return _Given(log_nU[side.first_P], log_nU.gather(1, side.ids_n[:, None])[:, 0])
        device = side.ids_n.device
        targets = self.teacher.to(device).select(torch.arange(side.rows.start, side.rows.stop, device=device))
        row_m, log_m = targets.row_of_entry(), targets.probs.to(dtype).log().clamp_min(_NONE)
        hit_m = targets.token_ids == side.ids_n[row_m]
        log_own_n = log_m.new_full((len(targets),), _NONE).index_copy_(0, row_m[hit_m], log_m[hit_m])
        span_m = side.span_n[row_m]
        at_first_m = side.first_P[span_m] == row_m
        places = span_m[at_first_m], targets.token_ids[at_first_m]
        log_PU = log_m.new_full((len(side.first_P), size), _NONE).index_put_(places, log_m[at_first_m])
        if targets.tail_N is None:
            return _Given(log_PU, log_own_n)
        known_n = torch.zeros(len(targets), dtype=torch.bool, device=device).index_fill_(0, row_m[hit_m], True)
        return _Given(log_PU, log_own_n, log_PU > _NONE, known_n, targets.tail_N[side.first_P].to(dtype))


def _side(ids: Tensor, ends_P: Tensor, begin: int, first: int, last: int) -> _Side:
    ends_P = ends_P[first:last] - begin
    starts_P = F.pad(ends_P[:-1], (1, 0))
    counts_P = ends_P - starts_P
    rows = slice(begin, begin + int(ends_P[-1]))
    return _Side(ids[rows], torch.arange(last - first, device=ids.device).repeat_interleave(counts_P), starts_P, rows)


class _Events(NamedTuple):
    """Log-probability of each span as one event, and of each token."""

    log_span_P: Tensor
    log_PV: Tensor
    known_span_P: Tensor | None
    known_PV: Tensor | None


def _events(given: _Given, side: _Side, whole_P: Tensor, pair_ids_M: Tensor) -> _Events:
    """One side's distribution over events: the probability of the span is taken out of that of its tokens."""
    first_ids_P, later_n = side.ids_n[side.first_P], torch.ones_like(side.ids_n, dtype=torch.bool)
    later_n[side.first_P] = False
    spans_of_later = side.span_n[later_n]
    several_P = torch.bincount(spans_of_later, minlength=len(whole_P)) > 0
    log_first_P = given.log_own_n[side.first_P]
    log_later_P = torch.zeros_like(log_first_P).index_add(0, spans_of_later, given.log_own_n[later_n])
    log_left_P = log_first_P + log_later_P.clamp(-80.0, _LEAST).expm1().neg().log()
    log_left_P = torch.where(several_P, log_left_P, _NONE)
    whole_ids_P = first_ids_P
    if len(pair_ids_M):
        whole_ids_P = torch.where(whole_P >= 0, pair_ids_M[whole_P.clamp_min(0)], first_ids_P)
    apart_P, columns = whole_ids_P != first_ids_P, (first_ids_P[:, None], whole_ids_P[:, None])
    log_whole_P = torch.where(apart_P, given.log_PV.gather(1, columns[1])[:, 0], _NONE)
    log_span_P = torch.logaddexp(log_first_P + log_later_P, log_whole_P)
    log_PV = given.log_PV.scatter(1, columns[0], log_left_P[:, None])
    log_PV = log_PV.scatter(1, columns[1], torch.where(apart_P, _NONE, log_left_P)[:, None])
    if given.known_PV is None or given.known_own_n is None:
        return _Events(log_span_P, log_PV, None, None)
    known_P = ~apart_P | given.known_PV.gather(1, columns[1])[:, 0]
    known_P = known_P & (torch.bincount(side.span_n[~given.known_own_n], minlength=len(whole_P)) == 0)
    known_PV = given.known_PV.scatter(1, columns[0], known_P[:, None]).scatter(1, columns[1], known_P[:, None])
    return _Events(log_span_P, log_PV, known_P, known_PV)


def _kl(student: _Events, teacher: _Events, tail_P: Tensor | None, vocab: VocabMap) -> tuple[Tensor, Tensor]:
    """KL over span, pairs and bucket; and whether the student has tokens for the bucket."""
    log_q_PM, p_PM = (
        student.log_PV.index_select(1, vocab.student_M),
        teacher.log_PV.index_select(1, vocab.teacher_M).exp(),
    )
    # a second id with the bytes of the span, which counts as the span on the student's side
    taken_PM = log_q_PM < _NONE / 2
    p_span_P = teacher.log_span_P.exp() + torch.where(taken_PM, p_PM, 0.0).sum(1)
    p_PM = torch.where(taken_PM, 0.0, p_PM)
    bucket = [student.log_PV.index_select(1, vocab.student_rest)]
    p_rest_P = teacher.log_PV.index_select(1, vocab.teacher_rest).exp().sum(1)
    if teacher.known_span_P is not None and teacher.known_PV is not None and tail_P is not None:
        known_P, known_PM = teacher.known_span_P, teacher.known_PV[:, vocab.teacher_M]
        bucket += [torch.where(known_PM, _NONE, log_q_PM), torch.where(known_P, _NONE, student.log_span_P)[:, None]]
        p_rest_P = p_rest_P + tail_P + torch.where(known_PM, 0.0, p_PM).sum(1) + torch.where(known_P, 0.0, p_span_P)
        p_PM, p_span_P = torch.where(known_PM, p_PM, 0.0), torch.where(known_P, p_span_P, 0.0)
    # a column of probability 0, so that a bucket without tokens has a logsumexp
    bucket.append(torch.full_like(p_span_P, _NONE)[:, None])
    log_rest_P = torch.cat(bucket, dim=1).logsumexp(1)
    has_P = log_rest_P > _NONE / 2
    scale_P = torch.where(has_P, 1.0, 1.0 / (1.0 - p_rest_P).clamp_min(1e-30))
    p_PM, p_span_P = p_PM * scale_P[:, None], p_span_P * scale_P
    p_rest_P = torch.where(has_P, p_rest_P, 0.0)
    kl_P = (torch.xlogy(p_PM, p_PM) - p_PM * log_q_PM).sum(1)
    kl_P = kl_P + torch.xlogy(p_span_P, p_span_P) - p_span_P * student.log_span_P
    return kl_P + torch.xlogy(p_rest_P, p_rest_P) - p_rest_P * torch.where(has_P, log_rest_P, 0.0), has_P


def _sorted_distance(student: _Events, teacher: _Events, vocab: VocabMap) -> Tensor:
    """L1 distance of the sorted probabilities of tokens without a counterpart; the shorter side is padded with 0."""
    sides = student.log_PV.index_select(1, vocab.student_rest), teacher.log_PV.index_select(1, vocab.teacher_rest)
    width = max(side.shape[1] for side in sides)
    q_PR, p_PR = (F.pad(log.exp().sort(dim=1, descending=True).values, (0, width - log.shape[1])) for log in sides)
    distance_PR = (q_PR - p_PR).abs()
    if teacher.known_PV is not None:
        distance_PR = torch.where(p_PR > 0, distance_PR, 0.0)
    return distance_PR.sum(1)


class _Fused(torch.autograd.Function):
    """Chunks of spans through the head; gradients are computed in the forward pass, and scaled in backward."""

    @staticmethod
    def forward(ctx: Any, student_SH: Tensor, head_VH: Tensor, work: _Work) -> tuple[Tensor, ...]:
        kind = torch.promote_types(torch.promote_types(student_SH.dtype, head_VH.dtype), torch.float32)
        ctx.types, wanted = (student_SH.dtype, head_VH.dtype), [work.gradients and x for x in ctx.needs_input_grad[:2]]
        whole_VH = head_VH.detach().to(kind)
        ctx.gradients = [
            torch.zeros_like(x, dtype=kind) if want else None
            for x, want in zip((student_SH, head_VH), wanted, strict=True)
        ]
        sums_4 = whole_VH.new_zeros(4)
        for chunk, student, teacher in work.chunks():
            weight_P = work.weight_P[chunk].to(kind)
            with torch.autocast(student_SH.device.type, enabled=False), torch.set_grad_enabled(any(wanted)):
                hidden_nH = student_SH[student.rows].detach().to(kind) / work.temperature
                z_nV = F.linear(hidden_nH, whole_VH).requires_grad_(any(wanted))
                kl_P, distance_P = work.score(z_nV, chunk, student, teacher)
                loss = (weight_P * (kl_P + work.sorted_weight * distance_P)).sum()
                hard = F.cross_entropy(z_nV * work.temperature, student.ids_n, reduction="sum")
                loss = (1.0 - work.hard) * loss + work.hard * hard
            sums_4 += torch.stack([x.detach() for x in (loss, weight_P @ kl_P, weight_P @ distance_P, hard)])
            if any(wanted):
                (dz_nV,) = torch.autograd.grad(loss, z_nV)
                if ctx.gradients[0] is not None:
                    ctx.gradients[0][student.rows] = (dz_nV @ whole_VH) / work.temperature
                if ctx.gradients[1] is not None:
                    ctx.gradients[1].addmm_(dz_nV.T, hidden_nH)
        outputs = tuple(value.clone() for value in sums_4.unbind())
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *unused: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        scaled = [
            None if gradient is None else (gradient * grad_loss).to(kind)
            for gradient, kind in zip(ctx.gradients, ctx.types, strict=True)
        ]
        return scaled[0], scaled[1], None
