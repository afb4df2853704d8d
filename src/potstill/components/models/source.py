"""Finds the model that a user names: config.json, folder, GGUF file, hub id or shape."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.components.models.configs import from_config
from potstill.components.models.safetensors import stored_head
from potstill.components.models.shapes import SHAPE_EXAMPLE, is_shape, shape_spec, shape_to_config
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError
from potstill.core.files import read_json_object

__all__ = ["load_config", "load_spec", "read_config"]

_SECONDS = 10.0
_MAX_BYTES = 16 * 2**20
"""Largest config.json; one with 1,000 layers has about 100,000 bytes."""


def load_spec(model: str) -> ModelSpec:
    """The spec of the model that a user names.

    Args:
        model: a config.json, a folder with one (or with a single GGUF), a GGUF file (any one of a model in several
            files), a hub id, or a shape (see `shape_to_config`).

    Raises:
        UsageError: there is no such model, or its files cannot be understood.
    """
    path = _find(model)
    if path is None:
        if is_shape(model):
            return shape_spec(model)
        path, name = _from_hub(model), model
    else:
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
        if path.suffix == ".gguf" or _begins_as_gguf(path):
            from potstill.components.models.gguf_header import from_gguf

            return from_gguf(path)
    return _spec(path, read_config(path), name)


def load_config(model: str) -> dict[str, Any]:
    """config.json of the model that a user names as for `load_spec`; it cannot be a GGUF file.

    Raises:
        UsageError: there is no such model, it is a GGUF file, or its config cannot be understood.
    """
    path = _find(model)
    if path is None:
        if is_shape(model):
            shape_spec(model)  # raises where something is wrong with it
            return shape_to_config(model)
        path = _from_hub(model)
    if path.suffix == ".gguf" or _begins_as_gguf(path):
        raise UsageError(f"{model}: a GGUF file has no config.json, which is needed here. Give the original model.")
    config = read_config(path)
    _spec(path, config, model)  # raises where something is wrong with it
    return config


def _short(model: str) -> str:
    return model if len(model) <= 200 else model[:200] + "..."


def _find(model: str) -> Path | None:
    """The named file, or the one in the named folder; None where nothing has that name.

    Raises:
        UsageError: it is neither a file nor a folder, cannot be read, or the folder has no model.
    """
    try:
        path = Path(model).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _in_folder(path)
    except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):
        return None  # the latter two: a zero byte, or the home folder of an unknown user
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise UsageError(f"{_short(model)}: cannot be read ({error.strerror}). Check its permissions.") from None
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{model}: neither a file nor a folder (a device, a pipe or a socket). Save the config.json or GGUF as a "
            "file, and give that."
        )
    return path


def _begins_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None


def _in_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder / "config.json"
    files = sorted(folder.glob("*.gguf"))
    parts = {re.sub(r"-\d{5}(-of-\d{5}\.gguf)$", r"\1", file.name) for file in files}
    if len(parts) == 1:  # one file, or a model in several
        return files[0]
    found = f"{len(files)} GGUF files; name one" if files else "neither config.json nor a GGUF file"
    raise UsageError(f"{folder}: the folder has {found}.")


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config.json; not tied where the weights have an output matrix of their own.

    Raises:
        UsageError: the file cannot be read, or is not a config.json.
    """
    what = "Give a model's config.json or a GGUF file."
    if path.exists() and path.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{path}: not a config.json ({path.stat().st_size:,} bytes). {what}")
    config = read_json_object(path, error=UsageError, advice=what)
    if config.get("tie_word_embeddings") and stored_head(path.parent) == "own":
        config["tie_word_embeddings"] = False
    return config


def _spec(path: Path, config: Mapping[str, Any], name: str) -> ModelSpec:
    try:
        return from_config(config, name)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.") from None


def _from_hub(model: str) -> Path:
    """config.json of a model on the hub: from the local cache, or downloaded into it.

    Raises:
        UsageError: it is not a hub id, or it cannot be downloaded.
    """
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith((".json", ".gguf")):
        raise UsageError(
            f"{_short(model)}: no such file or folder. Give a config.json, a model's folder, a GGUF file, a hub id "
            f"(org/name), or a shape: {SHAPE_EXAMPLE}."
        )
    import urllib.error
    import urllib.request

    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    # try one request first: without a network the hub client would retry for half a minute
    where = f"{constants.ENDPOINT}/{model}/resolve/main/config.json"
    try:
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        # without the token, which urllib would send on to any host that the hub redirects to; the client does not
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(where, timeout=_SECONDS):
            pass
        return Path(hf_hub_download(model, "config.json"))
    except Exception as error:  # the hub client raises many unrelated types; all mean the same to the user
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise UsageError(
            f"{_short(model)}: no such file or folder, and its config.json could not be downloaded ({reason}). Check "
            "the name, the network, and HF_TOKEN if the model is gated; or give a config.json, a GGUF file or a shape."
        ) from None
