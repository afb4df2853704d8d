"""A shard: a file of whole sequences that is written once, by an atomic rename, and never changed.

    magic | sections | footer (JSON) | BLAKE2b-16 of the footer, its length | magic

The sections are the keys and token counts of the sequences, the table of id frequencies, and blocks of a few thousand
tokens that are decoded separately. The footer has the place and BLAKE2b-16 of each section, the sums that were measured
when the targets were made, and the identity of the store. Footer and keys are verified when a shard is opened, and a
block when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from potstill.components.targets.coding import Block, decode_block, encode_block, id_order, rank_table
from potstill.components.targets.meta import KEY_BYTES, TargetsMeta
from potstill.components.targets.sketch import SUMS, Sketch, join_sketches
from potstill.core.errors import StepError
from potstill.core.files import write_bytes

__all__ = ["SUFFIX", "Shard", "open_shard", "write_shard"]

SUFFIX = ".targets"
_MAGIC = b"potstill targets\n"
_TAIL = struct.Struct("<16sQ")
_BLOCK_TOKENS = 8192


class Footer(TypedDict):
    """The footer of a shard.

    store                        identity of the store
    sequences, tokens, entries   numbers of each in the shard
    sums                         sums over tokens of what was measured, by name (`sketch.SUMS`)
    blocks                       number of sequences in each block
    sections                     (offset, bytes, checksum) of each section, by name
    """

    store: str
    sequences: int
    tokens: int
    entries: int
    sums: dict[str, float]
    blocks: list[int]
    sections: dict[str, tuple[int, int, str]]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _cut(tokens: list[int]) -> list[tuple[int, int]]:
    """Ranges of sequences whose tokens fill a block."""
    cuts, start, filled = [], 0, 0
    for index, count in enumerate(tokens):
        filled += count
        if filled >= _BLOCK_TOKENS or index + 1 == len(tokens):
            cuts.append((start, index + 1))
            start, filled = index + 1, 0
    return cuts


def write_shard(path: Path, meta: TargetsMeta, entries: list[tuple[bytes, Sketch]]) -> int:
    """Write sequences (key, sketch) as the shard `path`, whole or not at all; returns its size in bytes."""
    import zstandard

    tokens = [len(sketch.lengths_N) for _, sketch in entries]
    table_V = rank_table(np.concatenate([sketch.ids_M for _, sketch in entries]), meta.vocab_size)
    rank_V = np.empty(meta.vocab_size, dtype=np.int64)
    rank_V[id_order(table_V)] = np.arange(meta.vocab_size)
    sections: dict[str, bytes] = {
        "keys": b"".join(digest for digest, _ in entries),
        "tokens": np.asarray(tokens, dtype="<u4").tobytes(),
        "table": zstandard.ZstdCompressor(level=19).compress(table_V.tobytes()),
    }
    cuts = _cut(tokens)
    for number, (start, stop) in enumerate(cuts):
        whole = join_sketches([sketch for _, sketch in entries[start:stop]])
        offsets_N1 = np.concatenate([[0], np.cumsum(whole.lengths_N)])
        block = Block(offsets_N1, whole.ids_M.astype(np.uint32), whole.values_M, whole.tails_N)
        sections[f"block{number}"] = encode_block(block, rank_V, falling=meta.kind == "counts")
    sums_NS = np.concatenate([sketch.sums_NS for _, sketch in entries])
    footer: Footer = {
        "store": meta.store_id,
        "sequences": len(entries),
        "tokens": sum(tokens),
        "entries": sum(len(sketch.ids_M) for _, sketch in entries),
        "sums": dict(zip(SUMS[meta.kind], sums_NS.sum(0).tolist(), strict=True)),
        "blocks": [stop - start for start, stop in cuts],
        "sections": {},
    }
    offset = len(_MAGIC)
    for name, data in sections.items():
        footer["sections"][name] = (offset, len(data), _digest(data).hex())
        offset += len(data)
    end = json.dumps(footer).encode()
    write_bytes(path, b"".join([_MAGIC, *sections.values(), end, _TAIL.pack(_digest(end), len(end)), _MAGIC]))
    return path.stat().st_size


@dataclass(frozen=True)
class Shard:
    """An opened shard. Blocks are read when they are needed.

    path     the file
    meta     identity of the store
    footer   the parsed footer
    keys     digest of each sequence's key
    starts   (sequences + 1,) first token of each sequence, counted over the shard
    """

    path: Path
    meta: TargetsMeta
    footer: Footer
    keys: tuple[bytes, ...]
    starts: NDArray[np.int64]

    @cached_property
    def _order_V(self) -> NDArray[np.uint32]:
        import zstandard

        packed = _section(self.path, self.footer, "table")
        return id_order(np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), dtype=np.uint8))

    @cached_property
    def block_ends(self) -> NDArray[np.int64]:
        """(blocks,) number of sequences up to the end of each block."""
        return np.cumsum(self.footer["blocks"], dtype=np.int64)

    def read_block(self, number: int) -> Block:
        """Decode block `number`.

        Raises:
            StepError: its bytes have changed since they were written.
        """
        data = _section(self.path, self.footer, f"block{number}")
        try:
            return decode_block(data, self._order_V, draws=self.meta.draws, k=self.meta.k)
        except (ValueError, IndexError, struct.error):  # the checksum is right, so the writer was wrong
            raise _damaged(self.path, f"block {number} does not decode") from None


def _damaged(path: Path, what: str) -> StepError:
    return StepError(
        f"{path}: the shard is damaged ({what}). "
        "Delete this file and run again; the teacher then scores only its sequences again."
    )


def _section(path: Path, footer: Footer, name: str) -> bytes:
    offset, size, digest = footer["sections"][name]
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise StepError(f"{path}: the shard cannot be read ({error.strerror}).") from None
    if _digest(data).hex() != digest:
        raise _damaged(path, f"checksum of its {name.rstrip('0123456789')} differs")
    return data


def _footer(path: Path) -> Footer:
    end = _TAIL.size + len(_MAGIC)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < len(_MAGIC) + end:
                raise _damaged(path, "it is cut short")
            file.seek(size - end)
            tail = file.read(end)
            digest, length = _TAIL.unpack(tail[: _TAIL.size])
            if tail[_TAIL.size :] != _MAGIC or length > size - end:
                raise _damaged(path, "its end is missing")
            file.seek(size - end - length)
            data = file.read(length)
            file.seek(0)
            begins = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise StepError(f"{path}: the shard cannot be read ({error.strerror}).") from None
    if not begins or _digest(data) != digest:
        raise _damaged(path, "checksum of its footer differs")
    found: Footer = json.loads(data)
    return found


def open_shard(path: Path, meta: TargetsMeta) -> Shard:
    """Open a shard of the store that `meta` describes.

    Raises:
        StepError: it is damaged, or belongs to another store.
    """
    footer = _footer(path)
    if footer["store"] != meta.store_id:
        raise StepError(
            f"{path}: the shard belongs to another store than the meta.json in its folder "
            "(another teacher, tokenizer, temperature or kind of target). Move it back to the folder that it came from."
        )
    packed = _section(path, footer, "keys")
    keys = tuple(packed[i : i + KEY_BYTES] for i in range(0, len(packed), KEY_BYTES))
    tokens = np.frombuffer(_section(path, footer, "tokens"), dtype="<u4")
    return Shard(path, meta, footer, keys, np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)]))
