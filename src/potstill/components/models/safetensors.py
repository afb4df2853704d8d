"""Facts about a model from its safetensors files, mostly from their headers; no library is needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from potstill.core.errors import DataError, RecipeError
from potstill.core.files import read_json_object
from potstill.core.json_values import read_foreign

__all__ = [
    "Head",
    "require_weights",
    "safetensors_format",
    "safetensors_parameters",
    "safetensors_shapes",
    "stored_head",
]

Head = Literal["absent", "copy", "own"]
"""The output matrix in the weights: there is none, it is the token embedding again, or it has values of its own."""

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_BLOCK = 1 << 24
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5", ".npz", ".gguf")
_STATES = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")  # of a training; no weights
_MOST_HEADER = 100_000_000  # bytes; the limit of the safetensors library


def require_weights(folder: Path) -> None:
    """Raise RecipeError as `safetensors_parameters` does; only the headers are read."""
    for _ in _named(folder):
        pass


def safetensors_parameters(folder: Path) -> int:
    """Parameters in a folder's safetensors files, from the files' headers alone.

    Raises:
        RecipeError: there is no such file, a shard of the index is missing, or a file is not whole.
    """
    return sum(math.prod(entry["shape"]) for entry in _tensors(folder))


def safetensors_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in a folder's safetensors files, by its name.

    Raises:
        RecipeError: as `safetensors_parameters`.
    """
    return {name: tuple(entry["shape"]) for name, entry in _named(folder)}


def safetensors_format(folder: Path) -> str:
    """Number format of most parameters in a folder's safetensors files, such as F32 or BF16.

    Raises:
        RecipeError: as `safetensors_parameters`.
    """
    counts: Counter[str] = Counter()
    for entry in _tensors(folder):
        counts[str(entry["dtype"])] += math.prod(entry["shape"])
    return counts.most_common(1)[0][0]


def stored_head(folder: Path) -> Head | None:
    """The output matrix in a folder's weights; None where the folder has no weights with a token embedding.

    The weights decide, and not `tie_word_embeddings`: a separately trained head may be saved with a config that still
    ties it, and transformers then computes with both matrices.

    Raises:
        RecipeError: as `safetensors_parameters`.
    """
    if not any(folder.glob("model*.safetensors")):  # they are on the hub
        return None
    tensors = dict(_named(folder))
    head, embedding = tensors.get(_HEAD), tensors.get(_EMBEDDING)
    if embedding is None:
        return None
    if head is None:
        return "absent"
    if any(head[key] != embedding[key] for key in ("dtype", "shape")):
        return "own"
    both = zip(_blocks(head), _blocks(embedding), strict=True)
    return "copy" if all(a == b for a, b in both) else "own"


def _blocks(entry: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes of a tensor, in pieces."""
    with entry["path"].open("rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
        first, end = (data + offset for offset in entry["data_offsets"])
        file.seek(first)
        for at in range(first, end, _BLOCK):
            yield file.read(min(_BLOCK, end - at))


def _tensors(folder: Path) -> Iterator[dict[str, Any]]:
    """Type, shape and offsets of each tensor of a model."""
    return (entry for _, entry in _named(folder))


def _named(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name, and file, type, shape and offsets, of each tensor of a model."""
    for path in _files(folder):
        if not path.is_file():
            raise _missing(folder, path)
        yield from ((name, {**entry, "path": path}) for name, entry in _header(path))


def _files(folder: Path) -> list[Path]:
    """The files that transformers loads: model.safetensors, or else those of the index."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole]
    try:
        names = sorted(set(read_json_object(index)["weight_map"].values()))
    except (DataError, KeyError, AttributeError, TypeError):
        raise RecipeError(f"{index}: not an index of safetensors files. Save or copy the model again.") from None
    return [folder / str(name) for name in names]


def _missing(folder: Path, path: Path) -> RecipeError:
    """The error for weights that are not there; weights in another format are named."""
    others = sorted(file for file in folder.iterdir() if file.suffix in _OTHER_FORMATS)
    others = [file for file in others if not file.name.startswith(_STATES)]
    if others and path.name == "model.safetensors":
        return RecipeError(
            f"{others[0]}: only weights in safetensors are read, because a pickle can run code. Load the model where "
            "you trust it, and save it with save_pretrained of transformers 5, which writes safetensors."
        )
    odd = next((file.name for file in sorted(folder.glob("*.safetensors"))), None)
    found = f" (found {odd})" if odd else ""
    return RecipeError(
        f"{path}: no such file{found}, so the model has no weights. Save it with save_pretrained, which writes "
        "safetensors, or copy the folder again, with model.safetensors.index.json if the weights are in several files."
    )


def _header(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The tensors of one file. The format: 8 bytes of header length, little-endian; JSON; the tensors' bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < min(size, _MOST_HEADER) else b""
    try:
        header = read_foreign(text.decode("utf-8"))
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(entry["data_offsets"][1] for _, entry in entries) == size
        whole = whole and all(_is_tensor(entry) for _, entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        whole = False
    if not whole:
        raise RecipeError(f"{path}: not a whole safetensors file. Download or save the model again.")
    return entries


def _is_tensor(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a header has the types and the ranges of a tensor's."""
    first, end = entry["data_offsets"]
    sizes = [*entry["shape"], first, end]
    return isinstance(entry["dtype"], str) and all(type(n) is int and n >= 0 for n in sizes) and first <= end
