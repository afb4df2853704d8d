"""Where a model is: a folder on this machine, or a snapshot from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from potstill.components.chat.template import TEMPLATE_FILES
from potstill.components.models.foreign import check_folder
from potstill.components.models.safetensors import require_weights
from potstill.core.errors import RecipeError
from potstill.core.recipe import split_revision

__all__ = ["resolve_model"]

_SMALL_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    *TEMPLATE_FILES,
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def resolve_model(model: str, *, weights: bool = True) -> Path:
    """The folder of a model: a local folder, or else a snapshot from the hub. One that must not be loaded is refused.

    Args:
        model: a folder, a hub id, or ID@REVISION.
        weights: whether the weights are needed; without them, tokenizer and configuration are enough.

    Raises:
        RecipeError: it is not a folder, and the hub does not give it; or its files name code, an adapter or a size that
            no model has, or its weights are not whole files of safetensors.
    """
    folder = _find(model, weights)
    check_folder(folder)
    if weights:
        require_weights(folder)
    return folder


def _find(model: str, weights: bool) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        check_folder(folder)  # an adapter has no config.json
        needed = "config.json" if weights else "tokenizer.json"
        if not (folder / needed).is_file():
            raise RecipeError(
                f"{folder}: the folder has no {needed}, so it is not a Hugging Face model. Give the folder of a model."
            )
        return folder.resolve()
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise RecipeError(
            f"{model}: no such model folder. "
            "Give a folder with config.json and safetensors, or a hub id such as Qwen/Qwen3-0.6B."
        )
    from huggingface_hub import snapshot_download

    name, revision = split_revision(model)
    patterns = [*_SMALL_FILES, *(_WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean the same to the user
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise RecipeError(
            f"{model}: there is no such folder, and the hub did not give it ({reason}). "
            "Check the name, the network, and HF_TOKEN if the model is gated."
        ) from None
