"""What a model's folder may hold: no code that would have to be run, no adapter, no kernel, no size that none has.

The checks read the folder's JSON files alone, so a model that cannot be loaded is refused before anything is spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.components.models.spec import MAX_LAYERS, MAX_SIZE
from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object
from potstill.core.words import printable

__all__ = ["check_folder"]

_OTHER_CONFIGS = (
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_BUILT_IN = {"eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"}
"""Implementations that are part of transformers and torch; a repository of the hub can be named in their place."""
_SIZES = ("vocab_size", "hidden_size", "intermediate_size")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers", "depth")
_ADVICE = "Save or copy the model again."
_NO_CODE = "and no code of a model is run"


def check_folder(folder: Path) -> None:
    """Raise RecipeError for a folder that must not be loaded; the message names the file and says what to do."""
    _check_adapter(folder)
    path = folder / "config.json"
    config = read_json_object(path, missing_ok=True, error=RecipeError, advice=_ADVICE)
    _check_code(path, config)
    _check_weight_files(folder, config)
    for key, value in _settings(config):
        if key in _IMPLEMENTATIONS:
            _check_implementation(path, key, value)
        most = MAX_SIZE if key in _SIZES else MAX_LAYERS if key in _LAYERS else None
        if (
            most and isinstance(value, int) and not 0 <= value <= most
        ):  # the layers would be built before a tensor is read
            found = printable(str(value), 40)
            raise RecipeError(f"{path}: {key} must be 0 or more and {most:,} at most, found {found}. {_ADVICE}")
    for name in _OTHER_CONFIGS:
        other = read_json_object(folder / name, missing_ok=True, error=RecipeError, advice=_ADVICE)
        if classes := other.get("auto_map"):
            raise RecipeError(
                f"{folder / name}: auto_map names {_first(classes)}, {_NO_CODE}. Delete the key if the model works "
                "without that code, or choose another model."
            )


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a config and of the configs inside it, with its value."""
    if isinstance(value, dict):
        yield from value.items()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _settings(each)


def _check_adapter(folder: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        if (folder / name).exists():
            raise RecipeError(
                f"{folder / name}: the folder holds an adapter, which changes another model. Merge it into that model "
                "(merge_and_unload of peft), save the result with save_pretrained, and give its folder."
            )


def _check_code(path: Path, config: dict[str, Any]) -> None:
    """Refuse a config whose model needs code of its own. Many models that transformers knows name such code too."""
    inner = any(key == "auto_map" for value in config.values() for key, _ in _settings(value))
    classes, kind = config.get("auto_map"), config.get("model_type")
    if inner or (classes and not _is_known(kind)):
        raise RecipeError(
            f"{path}: auto_map names {_first(classes) if classes else 'code'}, {_NO_CODE}. Choose a model that "
            "transformers supports by itself."
        )


def _is_known(kind: Any) -> bool:
    """Whether transformers has this type of model; True where it is not installed, and so cannot load any."""
    if find_spec("transformers") is None:
        return True
    from transformers import CONFIG_MAPPING

    return isinstance(kind, str) and kind in CONFIG_MAPPING


def _first(classes: Any) -> str:
    """The first class of an auto_map, for a message."""
    while isinstance(classes, dict | list) and classes:
        classes = next(iter(classes.values() if isinstance(classes, dict) else classes))
    return printable(str(classes), 100)


def _check_implementation(path: Path, key: str, value: Any) -> None:
    """Refuse a kernel: a repository on the hub, or flash attention, which is fetched there if it is not installed."""
    for name in value.values() if isinstance(value, dict) else [value]:
        installed = str(name).startswith("flash_attention") and "/" not in str(name) and find_spec("flash_attn")
        if name not in (None, *_BUILT_IN) and not installed:
            raise RecipeError(
                f"{path}: {key} is {printable(repr(name), 100)}, which names code outside of transformers, {_NO_CODE}. "
                "Delete the key."
            )


def _check_weight_files(folder: Path, config: dict[str, Any]) -> None:
    if named := config.get("transformers_weights"):
        raise RecipeError(
            f"{folder / 'config.json'}: transformers_weights names {printable(repr(named), 100)}, and only "
            "model.safetensors or its index is read. Delete the key, and give the file that name."
        )
    path = folder / "model.safetensors.index.json"
    index = read_json_object(path, missing_ok=True, error=RecipeError, advice=_ADVICE)
    files = index.get("weight_map", {})
    for name in files.values() if isinstance(files, dict) else ():
        if not str(name).endswith(".safetensors"):
            raise RecipeError(
                f"{path}: names {printable(repr(name), 100)}, and only weights in safetensors are read, because a "
                "pickle can run code. Save the model with save_pretrained."
            )
        if Path(str(name)).name != name:
            raise RecipeError(f"{path}: names {printable(repr(name), 100)}, which is outside of the folder. {_ADVICE}")
