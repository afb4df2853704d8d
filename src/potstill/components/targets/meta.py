"""Identity of a store; the key of a sequence; an estimate of the size of a store."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from potstill.core.errors import DataError
from potstill.core.files import read_json
from potstill.core.hashing import fingerprint

__all__ = ["FORMAT", "Kind", "SequenceKey", "TargetsMeta", "expected_bytes", "read_meta", "sequence_key"]

FORMAT = 2
KEY_BYTES = 16
_ANEW = "Delete this file and run again; the targets step then writes it anew."
Kind = Literal["counts", "top_k"]

# names for error messages; only a writer compares the seed, because a reader may use samples made with another one
_NAMES = {
    "kind": "kind of target",
    "draws": "samples per token",
    "k": "ids stored per token",
    "vocab_size": "vocabulary size",
    "teacher_hash": "teacher weights",
    "tokenizer_hash": "tokenizer",
    "template_hash": "chat template",
    "temperature": "temperature",
    "dtype": "teacher's dtype",
    "seed": "seed of the samples",
}


class TargetsMeta(BaseModel):
    """Identity of a store, in its meta.json: all that makes its targets different from those of another store.

    `counts`: `draws` ids per token, sampled with replacement from softmax(logits / temperature), which is unbiased
    (random-sampling knowledge distillation, ACL 2025). `top_k`: the `k` likeliest ids, and the mass of all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    kind: Kind
    draws: Annotated[int, Field(ge=1, le=255)] | None = None
    k: Annotated[int, Field(ge=1, le=1024)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)]
    teacher_hash: str
    tokenizer_hash: str
    template_hash: str
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: int | None = None
    dtype: str

    @model_validator(mode="after")
    def _one_kind(self) -> TargetsMeta:
        if self.kind == "counts" and (self.draws is None or self.seed is None or self.k is not None):
            raise ValueError("kind counts needs draws and seed, and takes no k")
        if self.kind == "top_k" and (self.k is None or self.draws is not None or self.seed is not None):
            raise ValueError("kind top_k needs k, and takes neither draws nor seed")
        if self.k is not None and self.k > self.vocab_size:
            raise ValueError("k is larger than the vocabulary")
        return self

    @property
    def store_id(self) -> str:
        """Hash of all fields. Every shard has it, so that a shard of another store is recognized."""
        return fingerprint(self.model_dump())

    def refuse_unless(self, wanted: TargetsMeta, folder: Path, *, writing: bool = False) -> None:
        """Raise DataError if this store is not the wanted one; the message names each difference."""
        names = [n for n in _NAMES if n != "seed" or writing]
        differing = [n for n in names if getattr(self, n) != getattr(wanted, n)]
        if differing:
            listed = "; ".join(
                f"{_NAMES[n]} ({_short(getattr(self, n))} in the store, {_short(getattr(wanted, n))} now)"
                for n in differing
            )
            raise DataError(
                f"{folder}: the store holds other targets than this run needs: {listed}. "
                "Use another folder, or restore the settings that the store was made with."
            )


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) > 40 else text


class SequenceKey(NamedTuple):
    """Identity of a row: a hash of its token ids and of where supervision starts, and its supervised tokens."""

    digest: bytes
    tokens: int


def sequence_key(ids: Sequence[int], n_prompt: int) -> SequenceKey:
    """Key of a rendered row: `ids` of prompt and completion, of which the first `n_prompt` are not supervised.

    Its targets are N = len(ids) - n_prompt distributions; row r is that of token ids[n_prompt + r] given all before.

    Raises:
        ValueError: no token before the first supervised one, or nothing supervised.
    """
    if not 1 <= n_prompt < len(ids):
        raise ValueError(f"n_prompt is {n_prompt} of {len(ids)} ids: prompt and answer both need at least one")
    digest = hashlib.blake2b(n_prompt.to_bytes(8, "little"), digest_size=KEY_BYTES, person=b"potstill-targets")
    digest.update(np.asarray(ids, dtype="<i4").tobytes())
    return SequenceKey(digest.digest(), len(ids) - n_prompt)


def read_meta(folder: Path) -> TargetsMeta:
    """The meta.json of a store.

    Raises:
        DataError: there is no store, or one that this version does not read.
    """
    path = folder / "meta.json"
    if not path.exists():
        raise DataError(f"{folder}: no targets store is here (no meta.json). Give the folder of a store.")
    found = read_json(path, advice=_ANEW)
    if isinstance(found, dict) and found.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{path}: the store has format {found['format']}, this potstill reads format {FORMAT}. Read it with the "
            "version that wrote it, or make the targets again in another folder."
        )
    try:
        return TargetsMeta.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}. {_ANEW}") from None


# measured by benchmarks/targets.py: bytes per token at V=32000, and the exponent of their growth with draws or k
_BYTES = {"counts": (1.82, 0.60), "top_k": (2.36, 0.93)}


def expected_bytes(kind: Kind, tokens: int, vocab: int, size: int) -> int:
    """Estimate of a store's size on disk in bytes, without running the teacher.

    It is a power law in `size` (draws or k), fitted to what benchmarks/targets.py measured at V=32000, times
    log2(vocab) / log2(32000) for the ids. A teacher with less entropy than the benchmark's needs less (for counts often
    half), and a small store needs a few kilobytes more for its tables.
    """
    scale, power = _BYTES[kind]
    per_token = scale * math.pow(size, power) * math.log2(max(2, vocab)) / math.log2(32000)
    return round(tokens * per_token)
