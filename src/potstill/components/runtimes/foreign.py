"""What a model's folder must hold before transformers may load it: no code, no pickle, no tensor left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.components.models.spec import MAX_LAYERS, MAX_SIZE
from potstill.core.errors import PotstillError, RecipeError
from potstill.core.files import read_json_object
from potstill.core.words import printable

__all__ = ["SAFE", "loading", "require_tensors"]

SAFE = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
"""Arguments of every `from_pretrained`: without the first, transformers asks on a terminal whether to run code."""
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_LIMITS = {
    "num_hidden_layers": MAX_LAYERS,
    "vocab_size": MAX_SIZE,
    "hidden_size": MAX_SIZE,
    "intermediate_size": MAX_SIZE,
}
_NAMED = 5


@contextmanager
def loading(folder: Path, must: str) -> Iterator[None]:
    """Around a load with transformers: any error in it is one paragraph that ends with what the model must be.

    Raises:
        RecipeError: the config names a kernel from the hub or a size that no model has, the index names a file that is
            not safetensors, or the library cannot load the model.
    """
    _check_config(folder)
    _check_index(folder)
    try:
        yield
    except (PotstillError, ImportError):
        raise
    except Exception as error:  # a damaged model ends in almost any type
        reason = printable(str(error).split("\n", 1)[0]) or type(error).__name__
        raise RecipeError(f"{folder}: transformers cannot load this model ({reason}). {must}") from None


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    config = read_json_object(path, error=RecipeError, advice="Save or copy the model again.")
    for key, most in _LIMITS.items():
        value = config.get(key)
        if isinstance(value, int) and value > most:  # transformers would build the layers before it reads a tensor
            found = printable(str(value), 40)
            raise RecipeError(f"{path}: {key} must be {most:,} at most, found {found}. Save or copy the model again.")
    for key in _IMPLEMENTATIONS:
        value = config.get(key)
        if value is not None and "/" in str(value):  # a name with a slash is a repository of the hub
            raise RecipeError(
                f"{path}: {key} is {printable(repr(value))}, which names code on the hub, and no code of a model is "
                "run. Delete the key."
            )


def _check_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = read_json_object(path, missing_ok=True, error=RecipeError, advice="Save or copy the model again.")
    files = index.get("weight_map", {})
    for name in files.values() if isinstance(files, dict) else ():
        if not str(name).endswith(".safetensors"):
            raise RecipeError(
                f"{path}: names {printable(repr(name))}, and only weights in safetensors are read, because a pickle "
                "can run code. Save the model with save_pretrained."
            )


def require_tensors(folder: Path, missing: Iterable[str]) -> None:
    """Raise RecipeError where a model's weights lack tensors; transformers fills them with random numbers."""
    names = sorted(missing)
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise RecipeError(
            f"{folder}: the weights lack {printable(', '.join(names[:_NAMED]))}{more}. Download or save the model "
            "again."
        )
