"""Distributions of many tokens as few bytes, and back, in whole-array NumPy.

Entries of a token stand in order of probability. Entries of equal value (equal counts, or equal places on the grid of
log-probabilities) have no order of their own, so they are sorted by id, and only the steps between them are written.
Ids are written as ranks by frequency within the shard, which makes small numbers of most. Values, tails and each byte
of the ranks are columns of their own, and zstd takes away what repeats.

Legend: N tokens, M entries of all tokens together, V vocabulary.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID", "NO_MASS", "TAIL_BYTES", "Block", "decode_block", "encode_block", "id_order", "rank_table"]

UInts = NDArray[np.uint8]
Ints = NDArray[np.int64]

GRID = 0.125  # nats between two log-probabilities that can be told apart
NO_MASS = 255  # grid code of an id with probability 0
# a tail's code: 0 is no tail, code c is sigmoid(TAIL_LOW + (c - 1) * TAIL_STEP): from 1e-7 to 0.9999
_TAIL_LOW, _TAIL_STEP = -16.0, 0.1
TAIL_BYTES = np.concatenate([[0.0], 1 / (1 + np.exp(-(_TAIL_LOW + _TAIL_STEP * np.arange(255))))])
_LEVEL = 12
_HEAD = struct.Struct("<IB")


class Block(NamedTuple):
    """Distributions of N tokens, M entries.

    offsets_N1  int64, entries of token n are offsets[n] to offsets[n + 1]
    ids_M       uint16 or uint32
    values_M    uint8: times drawn, or place on the grid below log-probability 0
    tails_N     uint8 codes into TAIL_BYTES; empty for counts
    """

    offsets_N1: Ints
    ids_M: NDArray[np.uint16] | NDArray[np.uint32]
    values_M: UInts
    tails_N: UInts

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(column.nbytes for column in self)


def tail_codes(tail_N: NDArray[np.float64]) -> UInts:
    """Nearest code of each tail mass in [0, 1]; only a tail of exactly 0 gets code 0."""
    inside_N = np.clip(tail_N, 1e-12, 1 - 1e-12)
    logit_N = np.log(inside_N) - np.log1p(-inside_N)
    codes_N = 1 + np.clip(np.rint((logit_N - _TAIL_LOW) / _TAIL_STEP), 0, 254)
    return np.where(tail_N > 0, codes_N, 0).astype(np.uint8)


def rank_table(ids_M: NDArray[np.int64], vocab: int) -> UInts:
    """How frequent each id is, (V,): 0 for never, else steps of a quarter of an octave."""
    counts_V = np.bincount(ids_M, minlength=vocab)
    return np.where(counts_V > 0, 1 + np.floor(4 * np.log2(np.maximum(counts_V, 1))), 0).astype(np.uint8)


def id_order(table_V: UInts) -> NDArray[np.uint32]:
    """Ids from the most to the least frequent, equals by id: rank r stands for id order[r]."""
    return np.argsort(NO_MASS - table_V, kind="stable").astype(np.uint32)


def _steps(first_M: NDArray[np.bool_], rank_M: Ints) -> Ints:
    """Ranks of a run of equals as its first and the gaps between neighbours."""
    gaps_M = np.diff(rank_M, prepend=0) - 1
    return np.where(first_M, rank_M, gaps_M)


def _unsteps(first_M: NDArray[np.bool_], steps_M: Ints) -> Ints:
    """Inverse of `_steps`: a running sum that starts anew at each run."""
    grown_M = np.where(first_M, steps_M, steps_M + 1)
    sums_M = np.cumsum(grown_M)
    start_M = np.maximum.accumulate(np.where(first_M, np.arange(len(first_M)), 0))
    unsteps_M: Ints = sums_M - (sums_M - grown_M)[start_M]
    return unsteps_M


def _runs(offsets_N1: Ints, values_M: UInts) -> NDArray[np.bool_]:
    """True where a token begins or the value changes."""
    first_M = np.empty(len(values_M), dtype=np.bool_)
    first_M[1:] = values_M[1:] != values_M[:-1]
    first_M[offsets_N1[:-1]] = True
    return first_M


def encode_block(block: Block, rank_V: Ints, *, falling: bool) -> bytes:
    """Bytes of a block; `rank_V` gives each id's rank; `falling` when a larger value is likelier (counts)."""
    import zstandard

    n_tokens = len(block.offsets_N1) - 1
    token_M = np.repeat(np.arange(n_tokens, dtype=np.int64), np.diff(block.offsets_N1))
    order_M = (255 - block.values_M if falling else block.values_M).astype(np.int64)
    # token, then likelihood, then rank, in one integer: sorting it sorts all three
    sorted_M = np.sort(token_M << 40 | order_M << 32 | rank_V[block.ids_M])
    rank_M = sorted_M & 0xFFFFFFFF
    order_M = sorted_M >> 32 & 0xFF
    values_M = (255 - order_M if falling else order_M).astype(np.uint8)
    first_M = _runs(block.offsets_N1, values_M)
    steps_M = _steps(first_M, rank_M)
    if not falling:
        # codes only grow within a token: their steps are smaller numbers
        before_M = np.concatenate([[0], values_M[:-1]]).astype(np.uint8)
        before_M[block.offsets_N1[:-1]] = 0
        values_M = values_M - before_M
    planes = max(1, (int(steps_M.max(initial=0)).bit_length() + 7) // 8)
    columns = [values_M, block.tails_N, *((steps_M >> 8 * p & 0xFF).astype(np.uint8) for p in range(planes))]
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    packed = [compressor.compress(column.tobytes()) for column in columns]
    sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
    return _HEAD.pack(n_tokens, len(packed)) + sizes + b"".join(packed)


def decode_block(data: bytes, order_V: NDArray[np.uint32], *, draws: int | None, k: int | None) -> Block:
    """Inverse of `encode_block`; entries of equal value come back in order of frequency.

    Raises:
        ValueError: the columns do not fit together.
    """
    import zstandard

    n_tokens, n_columns = _HEAD.unpack_from(data)
    sizes = struct.unpack_from(f"<{n_columns}I", data, _HEAD.size)
    ends = _HEAD.size + 4 * n_columns + np.cumsum((0, *sizes))
    decompressor = zstandard.ZstdDecompressor()
    columns = [
        np.frombuffer(decompressor.decompress(data[a:b]), dtype=np.uint8)
        for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    values_M, tails_N, *planes = columns
    if draws is not None:  # a token ends where its counts are complete
        ends_N = np.flatnonzero(np.cumsum(values_M, dtype=np.int64) % draws == 0) + 1
        offsets_N1 = np.concatenate([[0], ends_N])
    else:
        assert k is not None
        offsets_N1 = np.arange(n_tokens + 1, dtype=np.int64) * k
        values_M = np.cumsum(values_M.reshape(n_tokens, k), axis=1, dtype=np.uint8).reshape(-1)
    if len(offsets_N1) != n_tokens + 1 or any(len(p) != offsets_N1[-1] for p in (values_M, *planes)):
        raise ValueError("columns of different lengths")
    steps_M = np.zeros(len(values_M), dtype=np.int64)
    for place, plane in enumerate(planes):
        steps_M |= plane.astype(np.int64) << 8 * place
    rank_M = _unsteps(_runs(offsets_N1, values_M), steps_M)
    ids_M = order_V[rank_M]
    return Block(offsets_N1, ids_M.astype(np.uint16) if len(order_V) <= 1 << 16 else ids_M, values_M, tails_N)
