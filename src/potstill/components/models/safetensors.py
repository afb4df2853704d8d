"""Number of parameters in safetensors files, from their headers alone: no weight is read, and no library is needed."""

from __future__ import annotations

import json
import math
from pathlib import Path

from potstill.core.errors import DataError, RecipeError
from potstill.core.files import read_json_object

__all__ = ["safetensors_parameters"]


def safetensors_parameters(folder: Path) -> int:
    """Parameters in a folder's model*.safetensors, from the files' headers alone.

    Raises:
        RecipeError: there is no such file, a shard of the index is missing, or a file is not whole.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(read_json_object(index)["weight_map"].values()))
        except (DataError, KeyError, AttributeError, TypeError):
            raise RecipeError(f"{index}: not an index of safetensors files. Save or copy the model again.") from None
        paths = [folder / str(name) for name in names]
    else:
        paths = sorted(folder.glob("model*.safetensors"))
    missing = [path for path in paths if not path.is_file()] if paths else [folder / "model.safetensors"]
    if missing:
        raise RecipeError(
            f"{missing[0]}: no such file, so the model has no weights. Save it with save_pretrained, which writes "
            "safetensors, or copy the folder again."
        )
    return sum(_header_parameters(path) for path in paths)


def _header_parameters(path: Path) -> int:
    """Parameters of one file. The format: 8 bytes of header length, little-endian; JSON; the tensors' bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < size else b""
    try:
        header = json.loads(text)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(entry["data_offsets"][1] for entry in entries) == size
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise RecipeError(f"{path}: not a whole safetensors file. Download or save the model again.")
    return sum(math.prod(entry["shape"]) for entry in entries)
