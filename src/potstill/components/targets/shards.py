"""A shard: a file of whole sequences that is written once, by an atomic rename, and never changed.

    magic | sections | footer (JSON) | BLAKE2b-16 of the footer, its length | magic

The sections are the keys and token counts of the sequences, the table of id frequencies, and blocks of a few thousand
tokens that are decoded separately. The footer has the place and BLAKE2b-16 of each section, the sums that were measured
when the targets were made, and the identity of the store. Footer and keys are verified when a shard is opened, and a
block when it is read.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from potstill.components.targets.coding import Block, decode_block, encode_block, id_order, rank_table, unpack_column
from potstill.components.targets.meta import KEY_BYTES, TargetsMeta
from potstill.components.targets.sketch import SUMS, Sketch, join_sketches, require_mass
from potstill.core.errors import StepError
from potstill.core.files import file_errors, write_bytes
from potstill.core.records import first_problem

__all__ = ["SUFFIX", "Shard", "damaged", "open_shard", "shard_paths", "write_shard"]

SUFFIX = ".targets"
_MAGIC = b"potstill targets\n"
_TAIL = struct.Struct("<16sQ")
_BLOCK_TOKENS = 8192


_MOST_FOOTER = 1 << 24

_Count = Annotated[int, Field(ge=0, le=1 << 40)]
_Sum = Annotated[float, Field(ge=-1e15, le=1e15)]


class Footer(BaseModel):
    """The footer of a shard.

    store                        identity of the store
    sequences, tokens, entries   numbers of each in the shard
    sums                         sums over tokens of what was measured, by name (`sketch.SUMS`)
    blocks                       number of sequences in each block
    sections                     (offset, bytes, checksum) of each section, by name, one after the other
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    store: str
    sequences: _Count
    tokens: _Count
    entries: _Count
    sums: dict[str, _Sum]
    blocks: list[Annotated[_Count, Field(ge=1)]]
    sections: dict[str, tuple[_Count, _Count, str]]


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


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a store, in the order of their numbers."""
    return sorted(folder.glob(f"shard-{'[0-9]' * 6}{SUFFIX}"))


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
    places: dict[str, tuple[int, int, str]] = {}
    offset = len(_MAGIC)
    for name, data in sections.items():
        places[name] = (offset, len(data), _digest(data).hex())
        offset += len(data)
    footer = Footer(
        store=meta.store_id,
        sequences=len(entries),
        tokens=sum(tokens),
        entries=sum(len(sketch.ids_M) for _, sketch in entries),
        sums=dict(zip(SUMS[meta.kind], sums_NS.sum(0).tolist(), strict=True)),
        blocks=[stop - start for start, stop in cuts],
        sections=places,
    )
    end = footer.model_dump_json().encode()
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
        """The ids that occur in the shard, by rank."""
        packed = _section(self.path, self.footer, "table")
        try:
            table_V = unpack_column(packed, self.meta.vocab_size)
            if len(table_V) != self.meta.vocab_size:
                raise ValueError("it has another number of ids than the vocabulary")
        except ValueError as error:
            raise damaged(self.path, f"its table of ids: {error}") from None
        return id_order(table_V)[: np.count_nonzero(table_V)]

    @cached_property
    def block_ends(self) -> NDArray[np.int64]:
        """(blocks,) number of sequences up to the end of each block."""
        return np.cumsum(self.footer.blocks, dtype=np.int64)

    def read_block(self, number: int) -> Block:
        """Decode block `number`.

        Raises:
            StepError: its bytes have changed since they were written, or are not distributions.
        """
        data = _section(self.path, self.footer, f"block{number}")
        end = self.block_ends[number]
        tokens = int(self.starts[end] - self.starts[end - self.footer.blocks[number]])
        try:
            block = decode_block(data, self._order_V, tokens=tokens, draws=self.meta.draws, k=self.meta.k)
            if self.meta.k is not None:
                require_mass(block.values_M.reshape(-1, self.meta.k), block.tails_N)
        except ValueError as error:  # the checksum is right, so another program or a fault in ours wrote it
            raise damaged(self.path, f"block {number}: {error}") from None
        return block


def damaged(path: Path, what: str) -> StepError:
    """The error of a shard that is not as `write_shard` writes it; `what` is a clause."""
    store = path.parent
    folder = store.parent if store.name == "store" else store  # a step has its store in a folder of this name
    return StepError(
        f"{path}: the shard is damaged ({what}). Delete this file and run again; the teacher then scores only its "
        f"sequences again. If the error comes back, delete the folder {folder} and run again, which scores all rows."
    )


def _section(path: Path, footer: Footer, name: str) -> bytes:
    offset, size, digest = footer.sections[name]
    with file_errors(path), path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if _digest(data).hex() != digest:
        raise damaged(path, f"checksum of its {name.rstrip('0123456789')} differs")
    return data


def _footer(path: Path) -> Footer:
    end = _TAIL.size + len(_MAGIC)
    with file_errors(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < len(_MAGIC) + end:
            raise damaged(path, "it is cut short")
        file.seek(size - end)
        tail = file.read(end)
        digest, length = _TAIL.unpack(tail[: _TAIL.size])
        if tail[_TAIL.size :] != _MAGIC or length > min(size - end - len(_MAGIC), _MOST_FOOTER):
            raise damaged(path, "its end is missing")
        file.seek(size - end - length)
        data = file.read(length)
        file.seek(0)
        begins = file.read(len(_MAGIC)) == _MAGIC
    if not begins or _digest(data) != digest:
        raise damaged(path, "checksum of its footer differs")
    try:
        footer = Footer.model_validate_json(data)
    except ValidationError as error:
        raise damaged(path, f"its footer: {first_problem(error)}") from None
    names = ["keys", "tokens", "table", *(f"block{number}" for number in range(len(footer.blocks)))]
    offset = len(_MAGIC)
    for name in names:
        start, length_of_section, _ = footer.sections.get(name, (-1, 0, ""))
        if start != offset:
            raise damaged(path, f"its footer has no right place for its {name}")
        offset += length_of_section
    if len(footer.sections) != len(names) or offset != size - end - length:
        raise damaged(path, "its sections do not fill it")
    return footer


def open_shard(path: Path, meta: TargetsMeta) -> Shard:
    """Open a shard of the store that `meta` describes.

    Raises:
        StepError: it is damaged, or belongs to another store.
    """
    footer = _footer(path)
    if footer.store != meta.store_id:
        raise StepError(
            f"{path}: the shard belongs to another store than the meta.json in its folder "
            "(another teacher, tokenizer, temperature or kind of target). Move it back to the folder that it came from."
        )
    packed = _section(path, footer, "keys")
    keys = tuple(packed[i : i + KEY_BYTES] for i in range(0, len(packed), KEY_BYTES))
    counts = _section(path, footer, "tokens")
    if len(packed) != KEY_BYTES * footer.sequences or len(counts) != 4 * footer.sequences:
        raise damaged(path, "its keys and its numbers of tokens are not those of its sequences")
    tokens = np.frombuffer(counts, dtype="<u4")
    fewest, most = (meta.k, meta.k) if meta.k is not None else (1, meta.draws or 0)
    if len(set(keys)) != len(keys) or sum(footer.blocks) != len(keys):
        raise damaged(path, "it has a sequence twice, or its blocks have other sequences")
    if not tokens.all() or tokens.sum(dtype=np.int64) != footer.tokens:
        raise damaged(path, "its sequences have another number of tokens")
    if not fewest * footer.tokens <= footer.entries <= most * footer.tokens:
        raise damaged(path, "its tokens have another number of entries")
    if set(footer.sums) != set(SUMS[meta.kind]):
        raise damaged(path, "its sums are those of another kind of target")
    return Shard(path, meta, footer, keys, np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)]))
