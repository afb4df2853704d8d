"""The header of a GGUF file, read without the gguf package and without its weights.

The format: magic, version, counts; keys with typed values; a list of tensors (name, dimensions, type, offset); padding;
the tensors' data. Everything is little-endian.
"""

from __future__ import annotations

import mmap
import re
import reprlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.components.models.gguf_types import TYPE_NAMES, stored_bytes
from potstill.components.models.spec import MAX_HEADS, MAX_LAYERS, MAX_SIZE, MAX_TOKENS, Attention, ModelSpec
from potstill.core.errors import UsageError
from potstill.core.words import printable

__all__ = ["Header", "from_gguf", "read_header", "read_model"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ITEMS = 4096
"""Longest array whose items are kept. Of a longer one (vocabulary, merges) only the length is kept."""
_MOST_BYTES, _MOST_ITEMS, _MOST_ENTRIES = 1 << 26, 1 << 24, 1 << 20
"""Longest text in bytes, most texts in an array, most keys or tensors; a file with holes could claim billions."""
# architectures in which every n-th layer attends to everything, for files that do not say so
_PATTERN = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "llama4": 4, "olmo2": 4, "exaone4": 4,
    "laguna": 4, "smallthinker": 4,
}  # fmt: skip
_FULL_FIRST = ("laguna", "smallthinker")
"""Architectures in which the first layer of each run attends to everything, not the last."""
_WINDOW = {"llama4": 8192}


@dataclass(frozen=True)
class Header:
    """`values` by key (a long array is only its length); dimensions rows first; `data_start` in bytes."""

    values: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    types: dict[str, str]
    data_start: int


class _Reader:
    """A cursor over the file. Any read may raise struct.error or IndexError where the file was cut short."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def scalar(self, code: str) -> Any:
        layout = "<" + code
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        if length > min(_MOST_BYTES, len(self.data) - self.at):
            raise IndexError
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner == _STRING:
            return self._texts(count)
        size = struct.calcsize("<" + _SCALARS[inner])
        if self.at + size * count > len(self.data):
            raise IndexError
        items = None
        if count <= _KEPT_ITEMS:
            items = list(struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.data, self.at))
        self.at += size * count
        return count if items is None else items

    def _texts(self, count: int) -> int:
        """Step over `count` strings; only their number is needed."""
        if count > _MOST_ITEMS:
            raise IndexError
        unpack, at, data = struct.Struct("<Q").unpack_from, self.at, self.data
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
        return count


def read_header(path: Path) -> Header:
    """Header of one GGUF file.

    Raises:
        UsageError: it cannot be read, is not a whole GGUF file, or has an unknown tensor type.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UsageError(
                    f"{path}: not a GGUF file (it does not begin with GGUF). Give a .gguf, or a config.json."
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(_Reader(data), path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the file and its permissions.") from None
    except (struct.error, IndexError, KeyError, OverflowError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: its header cannot be read ({type(error).__name__}). The file is cut short or damaged: copy or "
            "download it again."
        ) from None


def _parse(reader: _Reader, path: Path) -> Header:
    reader.at = 4
    version = reader.scalar("I")
    if version not in (2, 3):
        raise UsageError(f"{path}: GGUF version {version} is not known (2 and 3 are). Convert the model again.")
    n_tensors, n_keys = reader.scalar("Q"), reader.scalar("Q")
    if max(n_tensors, n_keys) > _MOST_ENTRIES:
        raise IndexError
    values = {}
    for _ in range(n_keys):
        key = reader.text()
        values[key] = reader.value(reader.scalar("I"))
    tensors, types, end = {}, {}, 0
    for _ in range(n_tensors):
        name = reader.text()
        dims = tuple(reader.scalar("Q") for _ in range(reader.scalar("I")))[::-1]
        number, offset = reader.scalar("I"), reader.scalar("Q")
        if number not in TYPE_NAMES:
            raise UsageError(
                f"{path}: tensor {printable(name)} has type number {number}, which this version does not know."
            )
        tensors[name], types[name] = dims, TYPE_NAMES[number]
        end = max(end, offset + stored_bytes(dims, types[name]))
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1:
        raise UsageError(
            f"{path}: general.alignment must be a positive integer, found {printable(repr(align))}. Convert it again."
        )
    start = -(-reader.at // align) * align
    if start + end > len(reader.data):
        raise UsageError(
            f"{path}: the file has {len(reader.data):,} bytes, and its tensors need {start + end:,}. It was cut short: "
            "copy or download it again."
        )
    return Header(values, tensors, types, start)


_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")


def read_model(path: Path) -> tuple[str, Header]:
    """Name and header of a model in one file, or in several as llama-gguf-split writes them.

    Args:
        path: the file, or any one of several. Keys are those of the first, tensors and bytes those of all.

    Raises:
        UsageError: as for `read_header`; or one of several files is missing or belongs to another model.
    """
    header = read_header(path)
    count = header.values.get("split.count", 1)
    if count in (0, 1):
        return path.name, header
    match = _SHARD.fullmatch(path.name)
    if not isinstance(count, int) or not 1 < count < 10**5 or not match:
        raise UsageError(
            f"{path}: one of {count} files of a model (split.count), and the others cannot be found by its name. "
            "Call them NAME-00001-of-0000N.gguf and so on, in one folder, as llama-gguf-split does."
        )
    names = [f"{match[1]}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{path}: one of {count} files of a model, and {missing[0]}{more} is not in the same folder. Put all of "
            "them into one folder."
        )
    parts = [read_header(path.with_name(name)) for name in names]
    tensors: dict[str, tuple[int, ...]] = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        found = part.values.get("split.no"), part.values.get("split.count")
        if found != (number, count) or tensors.keys() & part.tensors.keys():
            raise UsageError(
                f"{path.with_name(name)}: should be file {number} of {count}, but says that it is file {found[0]} "
                f"(from 0) of {found[1]}, or repeats a tensor of another file. Copy or download all of them again."
            )
        tensors |= part.tensors
    types = {name: kind for part in parts for name, kind in part.types.items()}
    declared = parts[0].values.get("split.tensors.count", len(tensors))
    if declared != len(tensors):
        raise UsageError(
            f"{path}: the model's {count} files hold {len(tensors)} tensors, but split.tensors.count is {declared}. "
            "The files belong to different models: copy or download all of them again."
        )
    whole = Header(parts[0].values, tensors, types, sum(p.data_start for p in parts))
    return f"{match[1]}.gguf", whole


_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4_MOE",
}  # fmt: skip
_BLOCK = re.compile(r"blk\.(\d{1,9})\.")
_RECURRENT = re.compile(r"\.(ssm_|time_mix_|shortconv\.)")


class _Keys:
    """The keys of a file's architecture, each checked when it is read."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values
        arch = values.get("general.architecture")
        self.arch = arch if isinstance(arch, str) and printable(arch, 60) == arch else ""

    def get(self, key: str) -> Any:
        return self.values.get(f"{self.arch}.{key}")

    def wrong(self, key: str, must: str) -> UsageError:
        """The error for a key whose value is wrong."""
        found = self.get(key)
        what = "is missing" if found is None else f"is {reprlib.repr(found)}"
        return UsageError(
            f"{self.path}: {self.arch}.{key} {what}, but must be {must}. The file is damaged, or of a kind of model "
            "that is not supported: download or convert it again, or give the model's config.json."
        )

    def count(self, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_SIZE) -> int:
        """A whole number.

        Raises:
            UsageError: it is missing, not a whole number, or out of bounds.
        """
        found = self.get(key)
        found = default if found is None else found
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise self.wrong(key, f"a whole number from {least} to {most:,}")
        return found

    def by_layer(self, key: str, layers: int) -> list[int]:
        """One number per layer, of which some can be 0; a file may have a single number for all layers.

        Raises:
            UsageError: as for `count`, or the file does not have one number per layer.
        """
        found = self.get(key)
        if not isinstance(found, list):
            return [self.count(key, most=MAX_HEADS)] * layers
        whole = all(isinstance(n, int) and 0 <= n <= MAX_HEADS for n in found)
        if len(found) != layers or not whole or not any(found):
            raise self.wrong(key, f"one whole number for each of {layers} layers")
        return found


def from_gguf(path: Path) -> ModelSpec:
    """The spec of a GGUF file, or of a model in several files, from the headers alone.

    Raises:
        UsageError: a file is cut short or contradicts itself, or is not a decoder with a KV cache (an adapter, a
            vision projector, an encoder, a recurrent model).
    """
    name, header = read_model(path)
    keys, tensors = _Keys(path, header.values), header.tensors
    _check_kind(keys, tensors)
    blocks, hidden = keys.count("block_count", most=MAX_LAYERS), keys.count("embedding_length")
    vocab, width = tensors["token_embd.weight"]
    if width != hidden or not 1 <= vocab <= MAX_SIZE:
        raise keys.wrong("embedding_length", f"the row of token_embd.weight, which is {vocab} x {width}")
    heads = keys.by_layer("attention.head_count", blocks)
    given = keys.get("attention.head_count_kv") is not None
    kv_heads = keys.by_layer("attention.head_count_kv", blocks) if given else heads
    _check_blocks(keys, tensors, heads)
    layers = blocks - keys.count("nextn_predict_layers", 0, least=0, most=blocks - 1)
    experts, experts_used = _experts(keys, tensors)
    file_type = header.values.get("general.file_type")
    return ModelSpec(
        name=name,
        architecture=keys.arch,
        vocab=vocab,
        hidden=hidden,
        attention=_attention(keys, heads, kv_heads, hidden)[:layers],
        tensors=tensors,
        types=header.types,
        context=keys.count("context_length", 0, least=0, most=MAX_TOKENS) or None,
        experts=experts,
        experts_used=experts_used,
        gqa=max(heads) // max(kv_heads),
        header_bytes=header.data_start,
        quantization=_FILE_TYPES.get(file_type, "mixed") if isinstance(file_type, int) else "mixed",
    )


def _check_kind(keys: _Keys, tensors: dict[str, tuple[int, ...]]) -> None:
    """Raise UsageError for a file that is not a decoder."""
    what = f"{keys.path}: a GGUF of {keys.arch or 'no named architecture'}"
    if not keys.arch or len(tensors.get("token_embd.weight", ())) != 2:
        raise UsageError(f"{what}, which is not a language model. Give the model itself.")
    if keys.get("attention.causal") is False or any(name.startswith("enc.") for name in tensors):
        raise UsageError(f"{what}, but an encoder; only models that generate text are supported.")
    if any(_RECURRENT.search(name) for name in tensors):
        raise UsageError(
            f"{what}, which has recurrent layers; only decoders with a KV cache in every layer are supported. Give a "
            "model without recurrent layers."
        )


def _check_blocks(keys: _Keys, tensors: dict[str, tuple[int, ...]], heads: list[int]) -> None:
    """Raise UsageError unless the blocks are those that the file counts; one without attention may have no tensors."""
    found = {int(match[1]) for match in map(_BLOCK.match, tensors) if match}
    needed = {i for i, number in enumerate(heads) if number}
    if needed - found or max(found, default=0) >= len(heads):
        odd = min(needed - found, default=max(found, default=0))
        there = "has no tensors" if odd in needed else "has tensors"
        raise keys.wrong("block_count", f"the number of its blocks (blk.N): blk.{odd} {there}")


def _experts(keys: _Keys, tensors: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """Experts in a layer, and how many of them a token is routed to."""
    sizes = {dims[0] for name, dims in tensors.items() if name.endswith("_exps.weight") and len(dims) == 3}
    experts = keys.count("expert_count", 0, least=0, most=MAX_HEADS)
    if sizes - {experts}:
        raise keys.wrong("expert_count", f"the experts of its tensors ({', '.join(map(str, sorted(sizes)))})")
    return experts, keys.count("expert_used_count", 0, least=1 if sizes else 0, most=experts)


def _attention(keys: _Keys, heads: list[int], kv_heads: list[int], hidden: int) -> tuple[Attention, ...]:
    """Attention of every block. The last `shared_kv_layers` have no cache of their own: they use that of others."""
    key = keys.count("attention.key_length", hidden // max(heads))
    value = keys.count("attention.value_length", key)
    sliding = keys.count("attention.key_length_swa", key), keys.count("attention.value_length_swa", value)
    latent = keys.count("attention.key_length_mla", 0, least=0)
    index = keys.count("attention.indexer.key_length", 0, least=0)
    chosen = keys.count("attention.indexer.top_k", 0, least=0, most=MAX_TOKENS)
    cached = len(heads) - keys.count("attention.shared_kv_layers", 0, least=0, most=len(heads) - 1)
    out = []
    for i, (number, groups, window) in enumerate(zip(heads, kv_heads, _windows(keys, len(heads)), strict=True)):
        if not latent and groups and number % groups:
            raise keys.wrong("attention.head_count_kv", f"a number that divides the query heads ({number})")
        k, v = sliding if window else (key, value)
        own = groups if i < cached else 0
        out.append(Attention(own, k, 0 if latent else v, number * (latent or k), window, index, chosen))
    return tuple(out)


def _windows(keys: _Keys, blocks: int) -> list[int | None]:
    """Tokens that each block looks back on; None for all of them."""
    window = keys.count("attention.sliding_window", _WINDOW.get(keys.arch, 0), least=0, most=MAX_TOKENS)
    pattern = keys.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        if len(pattern) < blocks:
            raise keys.wrong("attention.sliding_window_pattern", f"one value for each of {blocks} layers")
        return [window if window and slides else None for slides in pattern[:blocks]]
    period = keys.count("attention.sliding_window_pattern", _PATTERN.get(keys.arch, 0), least=0)
    full = 0 if keys.arch in _FULL_FIRST else period - 1
    return [window if window and period and i % period != full else None for i in range(blocks)]
