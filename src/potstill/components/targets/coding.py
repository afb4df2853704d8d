"""Compression of the distributions of many tokens, and the inverse, with NumPy on whole arrays.

The entries of a token are sorted by probability. Entries of equal value (equal counts, or equal log-probabilities on
the grid) are sorted by id, and only the differences between neighbours are written. Ids are written as ranks by
frequency within the shard, so most are small numbers. A number is split into its leading bits, which zstd compresses by
their frequency, and the lower bits, which are nearly random and written as they are. The counts of 1 at the end of a
token are left out, because they follow from the number of samples.

Shapes: N tokens, M entries of all tokens together, V vocabulary.
"""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GRID",
    "NO_MASS",
    "TAIL_BYTES",
    "Block",
    "decode_block",
    "encode_block",
    "id_order",
    "rank_table",
    "unpack_column",
]

UInts = NDArray[np.uint8]
Ints = NDArray[np.int64]

GRID = 0.125  # distance in nats between two values on the grid of log-probabilities
NO_MASS = 255  # grid code of an id with probability 0
# code of a tail: 0 is no tail, and code c is sigmoid(TAIL_LOW + (c - 1) * TAIL_STEP), from 1e-7 to 0.9999
_TAIL_LOW, _TAIL_STEP = -16.0, 0.1
TAIL_BYTES = np.concatenate([[0.0], 1 / (1 + np.exp(-(_TAIL_LOW + _TAIL_STEP * np.arange(255))))])
_LEVEL = 12
_TOP = 3  # number of bits below the leading bit that are coded together with it
_HEAD = struct.Struct("<IH")
_MOST_BYTES = 1 << 28  # of one column; that of a sequence of 128,000 tokens with 1,024 ids each has half of it


class Block(NamedTuple):
    """Distributions of N tokens, M entries.

    offsets_N1  int64, the entries of token n are offsets[n] to offsets[n + 1]
    ids_M       uint16 or uint32
    values_M    uint8, how often the id was sampled, or its log-probability as a code on the grid
    tails_N     uint8, codes into TAIL_BYTES; empty for counts
    """

    offsets_N1: Ints
    ids_M: NDArray[np.uint16] | NDArray[np.uint32]
    values_M: UInts
    tails_N: UInts

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
        return sum(column.nbytes for column in self)


def tail_codes(tail_N: NDArray[np.float64]) -> UInts:
    """The nearest code of each tail mass in [0, 1]; only a tail of exactly 0 gets code 0."""
    inside_N = np.clip(tail_N, 1e-12, 1 - 1e-12)
    logit_N = np.log(inside_N) - np.log1p(-inside_N)
    codes_N = 1 + np.clip(np.rint((logit_N - _TAIL_LOW) / _TAIL_STEP), 0, 254)
    return np.where(tail_N > 0, codes_N, 0).astype(np.uint8)


def rank_table(ids_M: NDArray[np.int64], vocab: int) -> UInts:
    """Frequency of each id, (V,): 0 if it does not occur, otherwise the number of bits of its count."""
    counts_V = np.bincount(ids_M, minlength=vocab)
    return np.where(counts_V > 0, np.frexp(counts_V)[1], 0).astype(np.uint8)


def id_order(table_V: UInts) -> NDArray[np.uint32]:
    """Ids from the most to the least frequent, and equally frequent ones by id: rank r is id order[r]."""
    return np.argsort(NO_MASS - table_V, kind="stable").astype(np.uint32)


def _steps(first_M: NDArray[np.bool_], rank_M: Ints) -> Ints:
    """Ranks of each run of equal values as the first rank and the gaps between neighbours."""
    gaps_M = np.diff(rank_M, prepend=0) - 1
    return np.where(first_M, rank_M, gaps_M)


def _unsteps(first_M: NDArray[np.bool_], steps_M: Ints) -> Ints:
    """Inverse of `_steps`: a cumulative sum that restarts at each run."""
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


def _split(numbers_M: Ints) -> tuple[UInts, UInts]:
    """Numbers as symbols (their size and the three bits below the leading one), and the lower bits, grouped by size."""
    low_M = np.maximum(np.frexp(numbers_M)[1].astype(np.int64) - 1 - _TOP, 0)
    symbols_M = ((low_M << _TOP) + (numbers_M >> low_M)).astype(np.uint8)
    bits = [np.zeros(0, dtype=np.uint8)]
    for size in range(1, int(low_M.max(initial=0)) + 1):
        chosen = numbers_M[low_M == size]
        bits.append((chosen[:, None] >> np.arange(size) & 1).astype(np.uint8).reshape(-1))
    return symbols_M, np.packbits(np.concatenate(bits))


def _join(symbols_M: UInts, packed: UInts) -> Ints:
    """Inverse of `_split`."""
    low_M = np.maximum((symbols_M >> _TOP).astype(np.int64) - 1, 0)
    numbers_M: Ints = (symbols_M.astype(np.int64) - (low_M << _TOP) << low_M).astype(np.int64)
    if len(packed) != -(-int(low_M.sum()) // 8):
        raise ValueError("the lower bits of its ids are not as many as their sizes say")
    bits, start = np.unpackbits(packed), 0
    for size in range(1, int(low_M.max(initial=0)) + 1):
        chosen = np.flatnonzero(low_M == size)
        end = start + size * len(chosen)
        columns = bits[start:end].reshape(-1, size).astype(np.int64)
        numbers_M[chosen] |= (columns << np.arange(size)).sum(1)
        start = end
    return numbers_M


def _pack_counts(offsets_N1: Ints, values_M: UInts) -> tuple[UInts, UInts]:
    """The number of counts above 1 per token, and those counts."""
    above_M = values_M > 1
    many_N = np.diff(np.concatenate([[0], np.cumsum(above_M)])[offsets_N1])
    return many_N.astype(np.uint8), values_M[above_M]


def _unpack_counts(many_N: UInts, large: UInts, draws: int) -> tuple[Ints, UInts]:
    """Offsets and counts: the samples that are not in the large counts are counts of 1."""
    ends_N = np.cumsum(many_N, dtype=np.int64)
    if len(large) != many_N.sum(dtype=np.int64) or not np.all(large > 1):
        raise ValueError("its counts above 1 are not as many as its tokens say")
    sums = np.concatenate([[0], np.cumsum(large, dtype=np.int64)])
    ones_N = draws - np.diff(sums[ends_N], prepend=0)
    if np.any(ones_N < 0):
        raise ValueError("the counts of a token sum to more than the number of samples")
    offsets_N1 = np.concatenate([[0], np.cumsum(many_N + ones_N)])
    values_M = np.ones(offsets_N1[-1], dtype=np.uint8)
    values_M[np.arange(len(large)) + np.repeat(offsets_N1[:-1] - ends_N + many_N, many_N)] = large
    return offsets_N1, values_M


def _pack_codes(codes_NK: UInts) -> tuple[UInts, UInts]:
    """Steps between neighbouring codes, which never decrease: two steps per byte, with the excess over 14 separate.

    Late steps are nearly all 0 or 1. A pair of steps as one symbol can take less than one bit per step. The bytes of
    the same place of all tokens form one row: (places, tokens).
    """
    steps_NK = np.diff(codes_NK, axis=1, prepend=np.uint8(0))
    small_NK = np.minimum(steps_NK, 15)
    if small_NK.shape[1] % 2:
        small_NK = np.pad(small_NK, ((0, 0), (0, 1)))
    pairs = small_NK[:, ::2] << 4 | small_NK[:, 1::2]
    return np.ascontiguousarray(pairs.T), steps_NK[steps_NK >= 15] - np.uint8(15)


def _unpack_codes(pairs: UInts, rest: UInts, k: int) -> UInts:
    """Inverse of `_pack_codes`, with all codes in one dimension."""
    pairs_NP = pairs.T
    steps_NK = np.stack([pairs_NP >> 4, pairs_NP & 15], axis=2).reshape(len(pairs_NP), -1)[:, :k].astype(np.int64)
    large_NK = steps_NK == 15
    if large_NK.sum() != len(rest):
        raise ValueError("its large steps are not as many as its codes say")
    steps_NK[large_NK] += rest
    codes_NK = np.cumsum(steps_NK, axis=1)
    if codes_NK.max(initial=0) > NO_MASS:
        raise ValueError("a log-probability is not on the grid")
    return codes_NK.astype(np.uint8).reshape(-1)


def encode_block(block: Block, rank_V: Ints, *, falling: bool) -> bytes:
    """Bytes of a block. `rank_V` has the rank of each id; `falling` means that a larger value is likelier (counts)."""
    import zstandard

    n_tokens = len(block.offsets_N1) - 1
    token_M = np.repeat(np.arange(n_tokens, dtype=np.int64), np.diff(block.offsets_N1))
    order_M = (255 - block.values_M if falling else block.values_M).astype(np.int64)
    # token, likelihood and rank in one integer, so that one sort orders by all three
    sorted_M = np.sort(token_M << 40 | order_M << 32 | rank_V[block.ids_M])
    rank_M = sorted_M & 0xFFFFFFFF
    order_M = sorted_M >> 32 & 0xFF
    values_M = (255 - order_M if falling else order_M).astype(np.uint8)
    symbols_M, low_bits = _split(_steps(_runs(block.offsets_N1, values_M), rank_M))
    if falling:
        columns = [*_pack_counts(block.offsets_N1, values_M), symbols_M, low_bits]
    else:
        pairs, rest = _pack_codes(values_M.reshape(n_tokens, -1))
        # each place is compressed separately: the first steps vary widely, and the last are nearly always 0
        columns = [*pairs, rest, block.tails_N, symbols_M, low_bits]
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    packed = [compressor.compress(column.tobytes()) for column in columns]
    sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
    return _HEAD.pack(n_tokens, len(packed)) + sizes + b"".join(packed)


def unpack_column(data: bytes, most: int) -> UInts:
    """The bytes of a compressed column.

    Raises:
        ValueError: it is not one, or it has more than `most` bytes; they are not allocated then.
    """
    import zstandard

    try:
        size = zstandard.frame_content_size(data)  # -1 where the column does not say
        if not 0 <= size <= min(most, _MOST_BYTES):
            raise ValueError("a column is larger than its tokens can be")
        unpacked = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError:
        raise ValueError("a column is not compressed as it should be") from None
    return np.frombuffer(unpacked, dtype=np.uint8)


def _columns(data: bytes, tokens: int, most: int) -> list[UInts]:
    """The columns of a block of so many tokens, each of at most `most` bytes."""
    if len(data) < _HEAD.size:
        raise ValueError("it is cut short")
    n_tokens, n_columns = _HEAD.unpack_from(data)
    if n_tokens != tokens or len(data) < _HEAD.size + 4 * n_columns:
        raise ValueError("it has another number of tokens or columns")
    sizes = struct.unpack_from(f"<{n_columns}I", data, _HEAD.size)
    ends = list(itertools.accumulate(sizes, initial=_HEAD.size + 4 * n_columns))
    if ends[-1] != len(data):
        raise ValueError("its columns do not fill it")
    return [unpack_column(data[a:b], most) for a, b in itertools.pairwise(ends)]


def decode_block(data: bytes, order_V: NDArray[np.uint32], *, tokens: int, draws: int | None, k: int | None) -> Block:
    """Inverse of `encode_block`; entries of equal value are returned in order of frequency.

    Args:
        data: the block.
        order_V: the ids by rank; those that the block cannot have may be absent.
        tokens: the number of tokens that the block must have.
        draws: samples per token, for counts.
        k: ids per token, for log-probabilities.

    Raises:
        ValueError: it is not a block of distributions over these ids; the message is a clause.
    """
    width = draws if draws is not None else k
    assert width is not None
    columns = _columns(data, tokens, 4 * tokens * width)
    if len(columns) != (4 if draws is not None else -(-width // 2) + 4):
        raise ValueError("it has another number of columns")
    *pairs, first, second, symbols_M, low_bits = columns
    if any(len(column) != tokens for column in (*pairs, first if draws is not None else second)):
        raise ValueError("a column has another number of tokens")
    tails_N = np.zeros(0, dtype=np.uint8)
    if draws is not None:
        offsets_N1, values_M = _unpack_counts(first, second, draws)
    else:
        tails_N = second
        offsets_N1 = np.arange(tokens + 1, dtype=np.int64) * width
        values_M = _unpack_codes(np.stack(pairs), first, width)
    if len(symbols_M) != offsets_N1[-1]:
        raise ValueError("it has another number of ids")
    first_M = _runs(offsets_N1, values_M)
    rank_M = _unsteps(first_M, _join(symbols_M, low_bits))
    _require_distinct(offsets_N1, values_M, rank_M, len(order_V), falling=draws is not None)
    ids_M = order_V[rank_M]
    return Block(offsets_N1, ids_M.astype(np.uint16) if order_V.max(initial=0) < 1 << 16 else ids_M, values_M, tails_N)


def _require_distinct(offsets_N1: Ints, values_M: UInts, rank_M: Ints, ranks: int, *, falling: bool) -> None:
    """Check that each token has distinct ids, the likeliest first."""
    if rank_M.max(initial=0) >= ranks:
        raise ValueError("it has an id that the shard does not have")
    token_M = np.repeat(np.arange(len(offsets_N1) - 1, dtype=np.int64), np.diff(offsets_N1))
    sorted_M = np.sort(token_M << 32 | rank_M)
    if np.any(sorted_M[1:] == sorted_M[:-1]):
        raise ValueError("a token has an id twice")
    grows_M = values_M[1:] > values_M[:-1] if falling else values_M[1:] < values_M[:-1]
    if np.any(grows_M & (token_M[1:] == token_M[:-1])):
        raise ValueError("the ids of a token are not in the order of their probabilities")
