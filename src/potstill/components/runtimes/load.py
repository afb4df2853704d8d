"""Load a Hugging Face causal language model from its folder, in the number format and the place that a recipe sets."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import parse_flag_from_env
from torch import nn

from potstill.components.models.safetensors import stored_head
from potstill.components.runtimes.foreign import SAFE, loading, require_tensors
from potstill.core.errors import RecipeError
from potstill.core.recipe import Offload

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["layer_list", "load_causal_lm", "moved", "on_device"]

# the library warns that parts of an offloaded model are not on the device, which is what the recipe asks for
logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)


def load_causal_lm(folder: Path, dtype: str = "float32", offload: Offload | None = None) -> PreTrainedModel:
    """A causal language model from a folder, ready to run.

    Args:
        folder: the model.
        dtype: "float32" or "bfloat16"; or "int8", which holds the layers' matrices in 8 bits (LLM.int8(), Dettmers et
            al., 2022) and the rest in bfloat16.
        offload: where the layers wait until they run: `cpu` (host memory, for a GPU) or `disk` (the model's own files).
            All other weights are on the accelerator, where there is one. None: the whole model is in host memory.

    Raises:
        RecipeError: transformers cannot load it, a tensor is missing or has another shape, or its logits are not a
            plain product of hidden state and head.
    """
    from transformers import AutoModelForCausalLM

    with loading(folder, "It must be a causal language model with safetensors."):
        where = _placement(folder, offload)
        # typed by hand, because the library's types do not know of output_loading_info
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **_number_format(dtype), **where, **SAFE)
    model: PreTrainedModel = loaded[0]
    require_tensors(folder, loaded[1])
    if model.config.tie_word_embeddings and stored_head(folder) == "own":
        model.config.tie_word_embeddings = False  # transformers keeps both matrices without changing the config
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise RecipeError(
            f"{folder}: the model adds a bias to its logits, which the losses of this version do not support. "
            "Choose another model."
        )
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, key, None):
            raise RecipeError(
                f"{folder}: the model rescales its logits ({key}), which the losses of this version do not support. "
                "Choose another model."
            )
    return model


def layer_list(model: PreTrainedModel) -> str:
    """Dotted name of the list of a model's layers: `model.layers`, or `bert.encoder.layer`."""
    total = model.config.num_hidden_layers
    parts = model.named_modules()
    return str(next(name for name, part in parts if isinstance(part, nn.ModuleList) and len(part) == total))


def on_device(model: PreTrainedModel) -> PreTrainedModel:
    """The model on this machine's accelerator, where there is one and ACCELERATE_USE_CPU does not forbid it."""
    return moved(model, _device())


def moved(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model on a device; an offloaded model is left where it is."""
    if not hasattr(model, "hf_device_map"):
        module: nn.Module = model
        module.to(device)
    return model


def _device() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", 0)) % torch.accelerator.device_count())


def _placement(folder: Path, offload: Offload | None) -> dict[str, Any]:
    """Arguments for transformers: where the parts of an offloaded model are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    device = _device()
    if offload is None or offload == device.type:  # a CPU's weights are in host memory anyway
        return {}
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder, trust_remote_code=False), trust_remote_code=False
        )
    layers = f"{layer_list(model)}."
    leaves = [name for name, part in model.named_modules() if not list(part.children())]
    places = {name: str(device) for name in leaves if not name.startswith(layers)}
    return {"device_map": places | {f"{layers}{i}": offload for i in range(model.config.num_hidden_layers)}}


def _number_format(dtype: str) -> dict[str, Any]:
    """Arguments for transformers: the number format of the weights."""
    if dtype != "int8":
        return {"dtype": getattr(torch, dtype)}
    import bitsandbytes  # noqa: F401  # where it is not installed, our own message names the extra
    from transformers import BitsAndBytesConfig

    # it warns at each product that it computes in float16, which is how LLM.int8() is defined
    warnings.filterwarnings("ignore", message="MatMul8bitLt")
    return {"dtype": torch.bfloat16, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
