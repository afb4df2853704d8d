"""The header of a GGUF file, read without the gguf package and without its weights.

The format: magic, version, counts; keys with typed values; a list of tensors (name, dimensions, type, offset); padding;
the tensors' data. Everything is little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UsageError
from potstill.gguf_types import TYPE_NAMES, stored_bytes
from potstill.plan.anatomy import Anatomy, Attention

__all__ = ["Header", "from_gguf", "header_bytes", "read_header"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ITEMS = 4096
"""An array longer than this (vocabulary, merges) is stepped over; its length is kept."""
# architectures whose every n-th layer looks at everything, where the file does not say
_PATTERN = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}


@dataclass(frozen=True)
class Header:
    """`values` by key (a long array is its length alone); tensors rows first; `data_start` in bytes."""

    values: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    types: dict[str, str]
    data_start: int
    file_bytes: int


class _Reader:
    """A cursor over the file. Every read may raise struct.error or IndexError at the end of a file cut short."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def scalar(self, code: str) -> Any:
        layout = "<" + code
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        raw = self.data[self.at : self.at + length]
        if len(raw) != length:
            raise IndexError
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
        """Step over `count` strings; only their number is of use here."""
        unpack, at, data = struct.Struct("<Q").unpack_from, self.at, self.data
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
        return count


def read_header(path: Path) -> Header:
    """Header of a GGUF file.

    Raises:
        UsageError: it is not a whole GGUF file, or holds a type that is not known.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UsageError(f"{path}: not a GGUF file (it does not begin with GGUF). Give a .gguf, or a config.json.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _parse(_Reader(data), path)
            except (struct.error, IndexError, KeyError, OverflowError, ValueError, RecursionError) as error:
                raise UsageError(
                    f"{path}: its header cannot be read ({type(error).__name__} near byte {len(data)} or before). The "
                    "file is cut short or damaged: copy or download it again."
                ) from None


def _parse(reader: _Reader, path: Path) -> Header:
    reader.at = 4
    version = reader.scalar("I")
    if version not in (2, 3):
        raise UsageError(f"{path}: GGUF version {version} is not known (2 and 3 are). Convert the model again.")
    n_tensors, n_keys = reader.scalar("Q"), reader.scalar("Q")
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
            raise UsageError(f"{path}: tensor {name} has type number {number}, which this version does not know.")
        tensors[name], types[name] = dims, TYPE_NAMES[number]
        end = max(end, offset + stored_bytes(dims, types[name]))
    align = values.get("general.alignment", 32)
    start = -(-reader.at // align) * align
    if start + end > len(reader.data):
        raise UsageError(
            f"{path}: the file has {len(reader.data):,} bytes, and its tensors need {start + end:,}. It was cut short: "
            "copy or download it again. Of a model in several files, all parts together are needed."
        )
    return Header(values, tensors, types, start, len(reader.data))


def from_gguf(path: Path) -> Anatomy:
    """The anatomy of a GGUF file, from its header alone.

    Raises:
        UsageError: the file is not whole, or is no model that answers (an adapter, a vision projector).
    """
    header = read_header(path)
    values = header.values
    arch = values.get("general.architecture", "")

    def get(key: str, default: Any = None) -> Any:
        return values.get(f"{arch}.{key}", default)

    layers = get("block_count")
    if "token_embd.weight" not in header.tensors or not isinstance(layers, int):
        raise UsageError(f"{path}: a GGUF of {arch or 'no named architecture'}, but no language model. Give the model.")
    experts = get("expert_count", 0)
    attention = tuple(_attention(get, arch, i) for i in range(layers - get("nextn_predict_layers", 0)))
    heads = get("attention.head_count")
    most = max(heads) if isinstance(heads, list) else heads
    return Anatomy(
        name=path.name,
        architecture=arch,
        vocab=header.tensors["token_embd.weight"][0],
        hidden=header.tensors["token_embd.weight"][1],
        attention=attention,
        tensors=header.tensors,
        types=header.types,
        context=get("context_length"),
        experts=experts,
        used=get("expert_used_count", 0),
        gqa=most // max(1, attention[0].kv_heads),
        header_bytes=header.data_start,
        quantization=_FILE_TYPES.get(values.get("general.file_type", -1), "mixed"),
    )


_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4_MOE",
}  # fmt: skip


def _attention(get: Callable[..., Any], arch: str, layer: int) -> Attention:
    def at(key: str) -> Any:
        found = get(key)
        return found[layer] if isinstance(found, list) else found

    heads = at("attention.head_count")
    kv_heads = at("attention.head_count_kv")
    kv_heads = heads if kv_heads is None else kv_heads
    key = get("attention.key_length") or get("embedding_length") // heads
    value = get("attention.value_length") or key
    latent = get("attention.key_length_mla")
    window = get("attention.sliding_window") or None
    if window:
        pattern = get("attention.sliding_window_pattern", _PATTERN.get(arch, 0))
        if isinstance(pattern, list):
            window = window if pattern[layer] else None
        elif not pattern or layer % pattern == pattern - 1:
            window = None
    return Attention(kv_heads, key, 0 if latent else value, heads * (latent or key), window)


def header_bytes(values: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> int:
    """Bytes before the tensors' data of a file with these keys and tensors, as llama.cpp and gguf-py write them.

    Args:
        values: key -> str, bool, int (32 bits), float (32 bits), or a list of one of them.
    """
    size = 4 + 4 + 8 + 8 + sum(8 + len(key.encode()) + 4 + _value_bytes(value) for key, value in values.items())
    size += sum(8 + len(name.encode()) + 4 + 8 * len(dims) + 4 + 8 for name, dims in tensors.items())
    return math.ceil(size / 32) * 32


def _value_bytes(value: Any) -> int:
    if isinstance(value, str | bytes):
        return 8 + len(value.encode() if isinstance(value, str) else value)
    if isinstance(value, list):
        return 4 + 8 + sum(map(_value_bytes, value))
    return 1 if isinstance(value, bool) else 4
