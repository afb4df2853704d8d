"""Reading of a store: targets of sequences in any order, as CSR arrays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.components.targets.coding import TAIL_BYTES, Block
from potstill.components.targets.meta import SequenceKey, TargetsMeta, read_meta
from potstill.components.targets.shards import damaged, open_shard, shard_paths
from potstill.components.targets.sketch import grid_probs
from potstill.core.errors import StepError

__all__ = ["TargetRows", "TargetsReader"]


class TargetRows(NamedTuple):
    """Targets of N tokens in compressed sparse rows, with M entries.

    offsets    (N + 1,) int64, the entries of token n are offsets[n] to offsets[n + 1], the likeliest first
    token_ids  (M,) int64
    probs      (M,) float32, counts / draws, or the probabilities of the k likeliest ids
    tail       (N,) float32, the mass of all other ids, so that a row sums to 1; None for counts, which sum to 1
    """

    offsets: NDArray[np.int64]
    token_ids: NDArray[np.int64]
    probs: NDArray[np.float32]
    tail: NDArray[np.float32] | None


class TargetsReader:
    """Reads the shards that a store has when it is opened.

    Args:
        folder: the store.
        expect: the identity that the store must have.
        cache_bytes: maximum size of the decoded blocks in memory; the least recently used are dropped first. A store of
            10 million tokens with 12 entries each takes about 0.45 GB in memory.

    Raises:
        DataError: there is no store, or it has another identity; the message names each difference.
        StepError: a shard is damaged, or belongs to another store.
    """

    def __init__(self, folder: Path, expect: TargetsMeta | None = None, cache_bytes: int = 1 << 29) -> None:
        self.folder, self.meta = folder, read_meta(folder)
        if expect is not None:
            self.meta.refuse_unless(expect, folder)
        self.shards = [open_shard(path, self.meta) for path in shard_paths(folder)]
        self._places: dict[bytes, tuple[int, int]] = {}
        for number, shard in enumerate(self.shards):
            for index, digest in enumerate(shard.keys):
                self._places.setdefault(digest, (number, index))
        self._cache: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._cache_bytes, self._cached = cache_bytes, 0
        self._lock = threading.Lock()

    def __contains__(self, key: SequenceKey) -> bool:
        return key.digest in self._places

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self._places)

    def require(self, keys: Sequence[SequenceKey]) -> None:
        """Check that all sequences are stored, before the training starts.

        Raises:
            StepError: sequences are missing; the message says how many, and which row is the first.
        """
        missing = [row for row, key in enumerate(keys) if key.digest not in self._places]
        if missing:
            raise StepError(
                f"{self.folder}: {len(missing)} of {len(keys)} sequences have no stored targets; "
                f"the first is row {missing[0]} (counted from 0). Run the targets step again, or remove these rows."
            )

    def lookup(self, keys: Sequence[SequenceKey]) -> TargetRows:
        """Targets of sequences, concatenated in the order of `keys`; several threads may call this at once.

        Raises:
            StepError: sequences are missing, or a shard is damaged.
        """
        self.require(keys)
        lengths: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        ids: list[NDArray[np.unsignedinteger]] = []
        values: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
        tails: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
        for key in keys:
            block, first, last = self._find(key)
            low, high = block.offsets_N1[first], block.offsets_N1[last]
            lengths.append(np.diff(block.offsets_N1[first : last + 1]))
            ids.append(block.ids_M[low:high])
            values.append(block.values_M[low:high])
            tails.append(block.tails_N[first:last])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        token_ids = np.concatenate([np.zeros(0, np.uint16), *ids]).astype(np.int64)
        value_M, tail_N = np.concatenate(values), np.concatenate(tails)
        if self.meta.draws is not None:
            return TargetRows(offsets, token_ids, value_M.astype(np.float32) / np.float32(self.meta.draws), None)
        assert self.meta.k is not None
        probs = grid_probs(value_M.reshape(-1, self.meta.k), tail_N).astype(np.float32).reshape(-1)
        return TargetRows(offsets, token_ids, probs, TAIL_BYTES[tail_N].astype(np.float32))

    def _find(self, key: SequenceKey) -> tuple[Block, int, int]:
        """The block that has a sequence, and the sequence's first and last token in it."""
        number, index = self._places[key.digest]
        shard = self.shards[number]
        place = int(np.searchsorted(shard.block_ends, index, side="right"))
        before = int(shard.block_ends[place - 1]) if place else 0
        first = int(shard.starts[index] - shard.starts[before])
        if shard.starts[index + 1] - shard.starts[index] != key.tokens:
            raise damaged(shard.path, f"sequence {index} has another number of tokens than its key")
        return self._block(number, place), first, first + key.tokens

    def _block(self, number: int, place: int) -> Block:
        with self._lock:
            block = self._cache.get((number, place))
            if block is not None:
                self._cache.move_to_end((number, place))
                return block
            block = self._cache[number, place] = self.shards[number].read_block(place)
            self._cached += block.nbytes
            while self._cached > self._cache_bytes and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
            return block
