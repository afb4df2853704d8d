"""Writing of a store: logits become shards. A killed process loses at most the shard that it was writing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from potstill.components.targets.meta import SequenceKey, TargetsMeta, read_meta
from potstill.components.targets.shards import SUFFIX, open_shard, shard_paths, write_shard
from potstill.components.targets.sketch import Sketch, join_sketches, sketch_likeliest, sketch_logits, uniforms
from potstill.core.errors import StepError
from potstill.core.files import unfinished, write_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TargetsWriter"]

Logits: TypeAlias = "Tensor | NDArray[np.floating]"


class TargetsWriter:
    """Adds sequences to a store, which is created if it does not exist.

    Args:
        folder: the folder of the store.
        meta: identity of the store; it must equal that of an existing one.
        shard_tokens: number of tokens after which a shard is written.

    Raises:
        DataError: the folder has a store with another identity; the message names each difference.
        StepError: another process is writing to this store, or a shard is damaged.
    """

    def __init__(self, folder: Path, meta: TargetsMeta, shard_tokens: int = 1 << 17) -> None:
        self.folder, self.meta, self.shard_tokens = folder, meta, shard_tokens
        self._held: set[bytes] = set()
        self._waiting: list[tuple[bytes, Sketch]] = []
        self._waiting_tokens = 0
        self._next = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(
                f"{self.folder}: another process is writing to this targets store. Wait for it, or use another folder."
            ) from None
        # shards that a killed process was writing
        for leftover in self.folder.glob(unfinished(self.folder / f"*{SUFFIX}").name):
            leftover.unlink()
        paths = shard_paths(self.folder)
        if (self.folder / "meta.json").exists():
            read_meta(self.folder).refuse_unless(self.meta, self.folder, writing=True)
        for path in paths:  # each has the identity of its store too
            self._held.update(open_shard(path, self.meta).keys)
            self._next = 1 + int(path.name.removeprefix("shard-").removesuffix(SUFFIX))
        if paths:
            self._write_meta()

    def _write_meta(self) -> None:
        if not (self.folder / "meta.json").exists():
            write_json(self.folder / "meta.json", self.meta.model_dump(exclude_none=True))

    def __contains__(self, key: SequenceKey) -> bool:
        """Whether a sequence is stored, or will be with the next shard."""
        return key.digest in self._held

    def add(self, key: SequenceKey, logits: Logits | Iterable[Logits]) -> bool:
        """Store one sequence.

        Args:
            key: from `sequence_key`.
            logits: (N, V) as a torch tensor or NumPy array, or an iterable of chunks of its rows; N = key.tokens.

        Returns:
            False if the sequence was stored already; nothing is stored twice.

        Raises:
            StepError: the logits are not a distribution, or have another number of tokens or another vocabulary.
        """
        chunks = [logits] if hasattr(logits, "shape") else logits
        return self.add_batch([key], chunks) == 1  # type: ignore[arg-type]

    def add_batch(self, keys: Sequence[SequenceKey], chunks: Iterable[Logits]) -> int:
        """Store several sequences, whose concatenated logits come as chunks of rows of any size.

        A sequence that is stored already is skipped, but its rows must be among the chunks.

        Returns:
            The number of new sequences.

        Raises:
            StepError: as for `add`; then nothing of the batch is stored.
        """
        total = sum(key.tokens for key in keys)
        uniforms_ND = None
        if self.meta.draws is not None and self.meta.seed is not None:
            uniforms_ND = np.concatenate([uniforms(key, self.meta.seed, self.meta.draws) for key in keys])
        parts: list[Sketch] = []
        done = 0
        for chunk in chunks:
            rows = len(chunk)
            self._check(chunk, done + rows, total)
            try:
                tile_ND = None if uniforms_ND is None else uniforms_ND[done : done + rows]
                parts.append(sketch_logits(self.meta, _tensor(chunk), tile_ND))
            except ValueError as error:
                raise StepError(
                    f"{self.folder}: rows {done} to {done + rows - 1} of these logits cannot be stored: {error}. "
                    "Check the teacher; float16 overflows where bfloat16 does not."
                ) from None
            done += rows
        if done != total:
            raise StepError(f"{self.folder}: got logits of {done} tokens for sequences of {total} supervised tokens.")
        new = self._take(keys, join_sketches(parts))
        if self._waiting_tokens >= self.shard_tokens:
            self.flush()
        return new

    def add_likeliest(
        self, key: SequenceKey, ids: Sequence[Sequence[int]], log_probs: Sequence[Sequence[float]]
    ) -> bool:
        """Store one sequence in a store of kind top_k, from the likeliest ids per token that are known.

        Args:
            key: from `sequence_key`.
            ids: distinct ids for each of the key.tokens tokens, in any number and order.
            log_probs: their log-probabilities (nats); the rest of the mass counts as spread evenly over all others.

        Returns:
            False if the sequence was stored already.

        Raises:
            StepError: the log-probabilities are not valid, or are those of another number of tokens.
        """
        if len(ids) != key.tokens:
            raise StepError(f"{self.folder}: got ids of {len(ids)} tokens for a sequence of {key.tokens} tokens.")
        try:
            sketch = sketch_likeliest(self.meta, ids, log_probs)
        except ValueError as error:
            raise StepError(f"{self.folder}: a sequence cannot be stored: {error}. Check the teacher.") from None
        new = self._take([key], sketch)
        if self._waiting_tokens >= self.shard_tokens:
            self.flush()
        return new == 1

    def _check(self, chunk: Logits, rows: int, total: int) -> None:
        if chunk.ndim != 2 or chunk.shape[1] != self.meta.vocab_size:
            raise StepError(
                f"{self.folder}: the logits have the shape {tuple(chunk.shape)}, but the store's vocabulary has "
                f"{self.meta.vocab_size} ids. Remove the padding of the vocabulary before storing logits."
            )
        if rows > total:
            raise StepError(f"{self.folder}: got more rows of logits than the {total} supervised tokens.")

    def _take(self, keys: Sequence[SequenceKey], whole: Sketch) -> int:
        entry_N1 = np.concatenate([[0], np.cumsum(whole.lengths_N)])
        start = new = 0
        for key in keys:
            stop = start + key.tokens
            if key.digest not in self._held:
                first, last = entry_N1[start], entry_N1[stop]
                # copies, because a slice would keep the whole batch in memory until the shard is written
                part = Sketch(
                    whole.lengths_N[start:stop].astype(np.int32),
                    whole.ids_M[first:last].astype(np.int32),
                    whole.values_M[first:last].copy(),
                    whole.tails_N[start:stop].copy(),
                    whole.sums_NS[start:stop].copy(),
                )
                self._waiting.append((key.digest, part))
                self._held.add(key.digest)
                self._waiting_tokens += key.tokens
                new += 1
            start = stop
        return new

    def flush(self) -> None:
        """Write the sequences that are not yet written as a shard."""
        if not self._waiting:
            return
        self._write_meta()
        write_shard(self.folder / f"shard-{self._next:06d}{SUFFIX}", self.meta, self._waiting)
        self._next += 1
        self._waiting, self._waiting_tokens = [], 0

    def close(self) -> None:
        """Write the last shard and release the store. A writer without sequences leaves no folder."""
        if self._lock < 0:
            return
        try:
            self.flush()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        finally:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> TargetsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # also after an error: the sequences are whole, and scoring them was expensive
        self.close()


def _tensor(chunk: Logits) -> Tensor:
    import torch

    return chunk if isinstance(chunk, torch.Tensor) else torch.from_numpy(np.require(chunk, requirements=["C", "W"]))
