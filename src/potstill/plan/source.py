"""Where a model's anatomy comes from: config.json, a folder, a GGUF file, the hub, or a shape on the command line."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.errors import UsageError
from potstill.plan.anatomy import Anatomy
from potstill.plan.configs import FAMILIES, from_config

__all__ = ["load_anatomy", "load_config", "shape_words", "words_config"]

_CLASS_OF = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_KEYS = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "ffn": "intermediate_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "vocab": "vocab_size", "tied": "tie_word_embeddings",
    "context": "max_position_embeddings",
}  # fmt: skip
_SECONDS = 10.0
_EXAMPLE = "llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1"


def load_anatomy(model: str) -> Anatomy:
    """The anatomy of what a user names.

    Args:
        model: a config.json, a folder with one (or with a single GGUF), a GGUF file, a hub id, or a shape such as
            `llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1`.

    Raises:
        UsageError: there is no such model, or its shape cannot be read from it.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    if path.is_file():
        if path.suffix == ".gguf" or _begins_as_gguf(path):
            from potstill.plan.gguf_header import from_gguf

            return from_gguf(path)
        return _read_config(path, path.resolve().parent.name if path.name == "config.json" else path.stem)
    if ":" in model and "=" in model:
        return _from_words(model)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith((".json", ".gguf")):
        return _read_config(_from_hub(model), model)
    raise UsageError(
        f"{model}: no such file or folder. Give a config.json, a model's folder, a GGUF file, a hub id (org/name), a "
        f"recipe (.yaml), or a shape: {_EXAMPLE}."
    )


def _begins_as_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _in_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder / "config.json"
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} GGUF files; name one" if files else "neither config.json nor a GGUF file"
    raise UsageError(f"{folder}: the folder has {found}.")


def _read_config(path: Path, name: str) -> Anatomy:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: not a config.json ({error}). Give a model's config.json or a GGUF file.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a JSON object, as a model's config.json does.")
    try:
        return from_config(value, name)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.") from None


def _from_hub(model: str) -> Path:
    """config.json of a hub model: from the hub's cache, else over the network into it."""
    from huggingface_hub import constants, get_token, hf_hub_download, try_to_load_from_cache

    # one request of our own first: without a network the hub client would try six times, for half a minute
    where = f"{constants.ENDPOINT}/{model}/resolve/main/config.json"
    try:
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with urllib.request.urlopen(urllib.request.Request(where, headers=headers), timeout=_SECONDS):
            pass
        return Path(hf_hub_download(model, "config.json"))
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean the same to the user
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise UsageError(
            f"{model}: no such file or folder here, and the hub did not give its config.json ({reason}). Check the "
            "name, the network, and HF_TOKEN if the model is gated; or give a config.json, a GGUF file or a shape."
        ) from None


def words_config(text: str) -> dict[str, Any]:
    """A shape on the command line as a config.json.

    Raises:
        UsageError: a word is not KEY=NUMBER, or the family is not known.
    """
    family, _, rest = text.partition(":")
    config: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.strip().partition("=")
        if key not in _KEYS or not value.isdigit():
            known = ", ".join(_KEYS)
            raise UsageError(f"shape {text!r}: {pair!r} is not KEY=NUMBER with a key of {known}. Example: {_EXAMPLE}.")
        config[_KEYS[key]] = bool(int(value)) if key == "tied" else int(value)
    if family not in _CLASS_OF:
        raise UsageError(f"shape {text!r}: {family!r} is not one of {', '.join(_CLASS_OF)}. Example: {_EXAMPLE}.")
    assert _CLASS_OF[family] in FAMILIES
    return config | {"architectures": [_CLASS_OF[family]]}


def shape_words(config: Mapping[str, Any]) -> str:
    """A config.json as a shape on the command line."""
    family = next(word for word, name in _CLASS_OF.items() if name == config["architectures"][0])
    given = {word: config[key] for word, key in _KEYS.items() if config.get(key)}
    return f"{family}:" + ",".join(f"{word}={int(value)}" for word, value in given.items())


def load_config(model: str) -> dict[str, Any]:
    """config.json of what a user names as for `load_anatomy`, but a GGUF file.

    Raises:
        UsageError: there is no such model, or it is a GGUF file.
    """
    path = Path(model).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.is_dir() or path.suffix == ".gguf":
        raise UsageError(f"{model}: students are cut from a model with a config.json, and this has none.")
    if not path.is_file():
        if ":" in model and "=" in model:
            return words_config(model)
        path = _from_hub(model)
    _read_config(path, model)  # so that a broken one is told as `plan` tells it
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _from_words(text: str) -> Anatomy:
    try:
        return from_config(words_config(text), text)
    except ValueError as error:
        word = next((short for short, long in _KEYS.items() if long in str(error)), None)
        what = f"{word} is missing or not a positive number" if word else str(error)
        raise UsageError(f"shape {text!r}: {what}. Example: {_EXAMPLE}.") from None
