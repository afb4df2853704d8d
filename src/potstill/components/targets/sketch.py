"""What is stored of a teacher's logits (sampled counts, or the top k with tail mass), and what that loses.

Logits are processed with torch on their own device, one tile of rows at a time. For a teacher without logits, the
log-probabilities of some ids are taken as they are.

Shapes: N tokens, V vocabulary, D samples per token, K stored ids, M entries, S sums.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.components.targets.coding import GRID, NO_MASS, TAIL_BYTES, tail_codes

if TYPE_CHECKING:
    from torch import Tensor

    from potstill.components.targets.meta import SequenceKey, TargetsMeta

__all__ = [
    "SUMS",
    "Sketch",
    "grid_probs",
    "join_sketches",
    "require_mass",
    "sketch_likeliest",
    "sketch_logits",
    "uniforms",
]

# what is measured per token while the full distribution p is known; r is what is stored of it
SUMS: dict[str, tuple[str, ...]] = {
    # entropy of p; p's mass on ids that were not sampled; KL(r || p); cross-entropy of r under p minus the entropy,
    # whose mean is 0 if r is unbiased; its square
    "counts": ("entropy", "tail", "kl_stored_teacher", "gap", "gap_squared"),
    # entropy of p; p's mass outside the k; KL(p || r) over k + 1 buckets; the same with the tail spread evenly over V
    "top_k": ("entropy", "tail", "kl_buckets", "kl_even_tail"),
}
_TILE = {"cpu": 1 << 21, "other": 1 << 26}  # elements of a tile: a few megabytes, or enough to fill a GPU
_SPAN = 128  # number of ids whose mass is summed before one of them is sampled
_NEVER = -1e4  # log-probability of an id with probability 0; its exponential is 0
_ROUNDING = 1e-3  # of sums of probabilities in 32 bits, and of the limits between two tail codes
_MAX_SUM = 1.01  # rounded probabilities may sum to this


class Sketch(NamedTuple):
    """What is stored of N tokens: number of entries per token, ids and values, tail codes, and measured sums."""

    lengths_N: NDArray[np.int64]
    ids_M: NDArray[np.int64]
    values_M: NDArray[np.uint8]
    tails_N: NDArray[np.uint8]
    sums_NS: NDArray[np.float64]


def join_sketches(parts: list[Sketch]) -> Sketch:
    """Sketches, concatenated."""
    return Sketch(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def uniforms(key: SequenceKey, seed: int, draws: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), (tokens, draws), each row sorted. They depend only on the seed and the sequence.

    So the samples depend neither on the order of sequences nor on how their logits were split into chunks.
    """
    digest = hashlib.blake2b(f"{seed}\0".encode() + key.digest, digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return np.sort(generator.random((key.tokens, draws)), axis=1)


def sketch_logits(meta: TargetsMeta, logits_NV: Tensor, uniforms_ND: NDArray[np.float64] | None) -> Sketch:
    """Sketch of (N, V) logits; for counts, with the uniform numbers of these rows.

    Raises:
        ValueError: a row of logits has a NaN, +inf, or no finite entry.
    """
    import torch

    cells = _TILE["cpu" if logits_NV.device.type == "cpu" else "other"]
    rows = max(1, cells // meta.vocab_size)
    parts: list[Sketch] = []
    with torch.no_grad():
        for start in range(0, len(logits_NV), rows):
            tile_NV = logits_NV[start : start + rows].detach().float()
            tile_NV = tile_NV if meta.temperature == 1 else tile_NV / meta.temperature
            # a logit of -inf has probability 0, and adds nothing to any sum
            log_probs_NV = torch.log_softmax(tile_NV, dim=-1).clamp_min_(_NEVER)
            probs_NV = log_probs_NV.exp()
            entropy_N = -torch.linalg.vecdot(probs_NV, log_probs_NV).double().cpu().numpy()
            if np.isnan(entropy_N).any():
                raise ValueError("the logits have a NaN, an infinity, or a row without a finite entry")
            if meta.kind == "counts":
                assert uniforms_ND is not None
                parts.append(_counts(log_probs_NV, probs_NV, entropy_N, uniforms_ND[start : start + rows]))
            else:
                assert meta.k is not None
                parts.append(_top_k(log_probs_NV, entropy_N, meta.k))
    return join_sketches(parts)


def _sample(probs_NV: Tensor, uniforms_ND: NDArray[np.float64]) -> Tensor:
    """Sampled ids (N, D), ascending in each row: the inverse cumulative distribution at ascending uniform numbers.

    First a span of ids is chosen, then an id within it, both by cumulative sums in float64, so that rare ids keep their
    probability. One cumulative sum over all ids would take five times as long.
    """
    import torch

    rows, vocab = probs_NV.shape
    spans_NBS = torch.nn.functional.pad(probs_NV, (0, -vocab % _SPAN)).view(rows, -1, _SPAN)
    mass_NB = spans_NBS.sum(-1).double()
    cdf_NB = mass_NB.cumsum(-1)
    wanted_ND = _below(torch.from_numpy(uniforms_ND).to(cdf_NB.device) * cdf_NB[:, -1:], cdf_NB[:, -1:])
    span_ND = torch.searchsorted(cdf_NB, wanted_ND, right=True)
    inside_NDS = spans_NBS[torch.arange(rows, device=cdf_NB.device)[:, None], span_ND].double().cumsum(-1)
    before_ND = torch.nn.functional.pad(cdf_NB, (1, 0)).gather(1, span_ND)
    share_ND = (wanted_ND - before_ND) / mass_NB.gather(1, span_ND)
    rest_ND1 = _below(share_ND[..., None] * inside_NDS[..., -1:], inside_NDS[..., -1:])
    return span_ND * _SPAN + torch.searchsorted(inside_NDS, rest_ND1, right=True)[..., 0]


def _below(wanted: Tensor, total: Tensor) -> Tensor:
    """Values that rounding has raised to the total mass, where there is no id, are set just below it."""
    import torch

    return torch.minimum(wanted, torch.nextafter(total, torch.zeros_like(total)))


def _counts(
    log_probs_NV: Tensor, probs_NV: Tensor, entropy_N: NDArray[np.float64], uniforms_ND: NDArray[np.float64]
) -> Sketch:
    """Ids sampled with replacement, and how often each was sampled."""
    import torch

    ids_ND = _sample(probs_NV, uniforms_ND)
    log_sampled_ND = log_probs_NV.gather(1, ids_ND).double()
    first_ND = torch.ones_like(ids_ND, dtype=torch.bool)
    first_ND[:, 1:] = ids_ND[:, 1:] != ids_ND[:, :-1]  # uniforms are sorted, so equal ids are neighbours
    support_N = (log_sampled_ND.exp() * first_ND).sum(-1)
    surprise_N = -log_sampled_ND.mean(-1).cpu().numpy()
    draws = ids_ND.shape[1]
    starts_M = np.flatnonzero(first_ND.cpu().numpy())
    values_M = np.diff(starts_M, append=first_ND.numel())
    lengths_N = first_ND.sum(-1).cpu().numpy()
    share_M = values_M / draws
    stored_N = np.add.reduceat(share_M * np.log(share_M), np.cumsum(lengths_N) - lengths_N)
    gap_N = surprise_N - entropy_N
    tail_N = np.maximum(0.0, 1 - support_N.cpu().numpy())
    sums_NS = np.stack([entropy_N, tail_N, stored_N + surprise_N, gap_N, gap_N**2], axis=1)
    ids_M = ids_ND.cpu().numpy().reshape(-1)[starts_M]
    return Sketch(lengths_N, ids_M, values_M.astype(np.uint8), np.zeros(0, np.uint8), sums_NS)


def grid_probs(codes_NK: NDArray[np.uint8], tails_N: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The probabilities of grid codes, scaled so that each row and its tail sum to 1."""
    table = np.exp(-GRID * np.arange(256))
    table[NO_MASS] = 0.0
    probs_NK = table[codes_NK]
    scale_N = (1 - TAIL_BYTES[tails_N]) / np.maximum(probs_NK.sum(1), 1e-300)
    scaled: NDArray[np.float64] = probs_NK * scale_N[:, None]
    return scaled


def require_mass(codes_NK: NDArray[np.uint8], tails_N: NDArray[np.uint8]) -> None:
    """Check that grid codes and tails are of distributions: the masses sum to 1, except for the rounding of both.

    Raises:
        ValueError: those of a token do not.
    """
    table = np.exp(-GRID * np.arange(256))
    table[NO_MASS] = 0.0
    mass_N, wide = table[codes_NK].sum(1), math.exp(GRID / 2)
    between = (TAIL_BYTES[1:] + np.append(TAIL_BYTES[2:], 1.0)) / 2  # upper limit of what is rounded to codes 1 to 255
    least_N = 1 - np.concatenate([[0.0], between[:-1], [1.0]])[tails_N]
    most_N = 1 - np.concatenate([[0.0, 0.0], between[:-1]])[tails_N]
    if np.any(mass_N > wide * most_N + _ROUNDING) or np.any(mass_N < least_N / wide - _ROUNDING):
        raise ValueError("the probabilities of a token do not sum to 1")


def _top_k(log_probs_NV: Tensor, entropy_N: NDArray[np.float64], k: int) -> Sketch:
    """The k likeliest ids, with their log-probabilities on the grid, and the mass of all others."""
    top_NK, ids_NK = log_probs_NV.topk(k, dim=-1)
    return _on_grid(ids_NK.cpu().numpy(), top_NK.double().cpu().numpy(), entropy_N, log_probs_NV.shape[1])


def sketch_likeliest(meta: TargetsMeta, ids: Sequence[Sequence[int]], log_probs: Sequence[Sequence[float]]) -> Sketch:
    """Sketch of N tokens from the log-probabilities of some ids per token (distinct, in any order).

    The rest of the mass counts as spread evenly over all other ids. A token with fewer than k known ids is filled up in
    this way, and its entropy is measured so. Of a token with more known ids, the k likeliest are stored.

    Raises:
        ValueError: probabilities are not numbers, or sum to more than 1.
    """
    assert meta.k is not None
    ids_NK = np.empty((len(ids), meta.k), dtype=np.int64)
    log_NK = np.empty((len(ids), meta.k))
    entropy_N = np.empty(len(ids))
    for row, (known, logs) in enumerate(zip(ids, log_probs, strict=True)):
        likeliest = sorted(zip(logs, known, strict=True), key=lambda entry: (-entry[0], entry[1]))[: meta.k]
        n = len(likeliest)
        log_K = np.array([log for log, _ in likeliest], dtype=np.float64)
        mass = float(np.exp(log_K).sum())
        if not mass <= _MAX_SUM:
            raise ValueError(f"the likeliest ids' probabilities sum to {mass:.4g}, which is more than 1")
        log_K = np.maximum(log_K - math.log(max(1.0, mass)), _NEVER)
        rest = max(0.0, 1.0 - mass) if n < meta.vocab_size else 0.0
        even = math.log(rest / (meta.vocab_size - n)) if rest else _NEVER
        ids_NK[row] = _fill([number for _, number in likeliest], meta.k)
        log_NK[row, :n], log_NK[row, n:] = log_K, even
        entropy_N[row] = -np.dot(np.exp(log_K), log_K) - rest * even
    return _on_grid(ids_NK, log_NK, entropy_N, meta.vocab_size)


def _fill(ids: list[int], k: int) -> list[int]:
    """The ids, filled up to k with the lowest other ids."""
    known = set(ids)
    return ids + list(islice((number for number in count() if number not in known), k - len(ids)))


def _on_grid(
    ids_NK: NDArray[np.int64], log_NK: NDArray[np.float64], entropy_N: NDArray[np.float64], vocab: int
) -> Sketch:
    """Ids with their log-probabilities on the grid, the mass of all others, and what this loses."""
    k = ids_NK.shape[1]
    probs_NK = np.exp(log_NK)
    tail_N = np.maximum(0.0, 1 - probs_NK.sum(1)) if k < vocab else np.zeros(len(log_NK))
    codes_NK = np.clip(np.rint(-log_NK / GRID), 0, NO_MASS - 1)
    codes_NK = np.where(probs_NK > 0, codes_NK, NO_MASS).astype(np.uint8)
    tails_N = tail_codes(tail_N)
    stored_NK = grid_probs(codes_NK, tails_N)
    plogp_NK = probs_NK * log_NK
    crossed_NK = probs_NK * np.log(np.where(probs_NK > 0, stored_NK, 1.0))
    log_tail_N = np.log(np.where(tail_N > 0, TAIL_BYTES[tails_N], 1.0))
    inside_N = (plogp_NK - crossed_NK).sum(1)
    plogp_tail_N = tail_N * np.log(np.where(tail_N > 0, tail_N, 1.0))
    spread_N = -entropy_N - plogp_NK.sum(1)  # sum of p ln p over the ids that are not stored
    even_N = spread_N - tail_N * (log_tail_N - math.log(max(1, vocab - k)))
    buckets_N = inside_N + plogp_tail_N - tail_N * log_tail_N
    sums_NS = np.stack([entropy_N, tail_N, buckets_N, inside_N + even_N], axis=1)
    lengths_N = np.full(len(log_NK), k, dtype=np.int64)
    return Sketch(lengths_N, ids_NK.reshape(-1), codes_NK.reshape(-1), tails_N, sums_NS)
