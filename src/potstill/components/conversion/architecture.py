"""What a checkpoint's config.json says, in GGUF's terms; what llama.cpp cannot run alike is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from potstill.components.models.architectures import EXPORTABLE
from potstill.components.models.configs import from_config, rope_settings, settings
from potstill.components.models.safetensors import stored_head
from potstill.core.errors import RecipeError, StepError
from potstill.core.files import read_json_object

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["Hyperparameters", "hyperparameters", "read_hyperparameters"]

# transformers' values where config.json leaves the key out
_CONTEXT = {"LlamaForCausalLM": 2048, "MistralForCausalLM": 131072}
_QWEN_CONTEXT = 32768
_RMS_EPS = 1e-6


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: the base, and how it is stretched to a longer context."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    # One divisor for each frequency (llama3 scaling), float32 of head_dim / 2, or None.
    divisors: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Hyperparameters:
    """The numbers llama.cpp needs to build the model; sizes in elements, context in tokens."""

    architecture: str
    n_layers: int
    context_length: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_eps: float
    vocab_size: int
    tied: bool
    rope: Rope

    def write(self, writer: GGUFWriter) -> None:
        """Put these into a GGUF file's metadata."""
        from gguf import RopeScalingType

        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.context_length)
        writer.add_embedding_length(self.hidden_size)
        writer.add_feed_forward_length(self.intermediate_size)
        writer.add_head_count(self.n_heads)
        writer.add_head_count_kv(self.n_kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(self.rms_eps)
        writer.add_vocab_size(self.vocab_size)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(self.rope.theta)
        if self.rope.kind in {"linear", "yarn"}:
            writer.add_rope_scaling_type(RopeScalingType(self.rope.kind))
            writer.add_rope_scaling_factor(self.rope.factor)
        if self.rope.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(self.rope.original_context)


def read_hyperparameters(checkpoint: Path) -> Hyperparameters:
    """The hyperparameters of a Hugging Face folder: see `hyperparameters`.

    The weights say whether the output matrix is tied to the embedding, as in transformers, and config.json only where
    both would fit.

    Raises:
        StepError: config.json or the weights are absent or broken, or the model cannot be exported.
    """
    path = checkpoint / "config.json"
    raw = read_json_object(path, error=StepError, advice="Give the folder of a whole Hugging Face checkpoint.")
    try:
        head = stored_head(checkpoint)
    except RecipeError as error:
        raise StepError(str(error)) from None
    return hyperparameters(raw | ({"tie_word_embeddings": False} if head == "own" else {}), path, tied=head == "absent")


def hyperparameters(raw: Mapping[str, Any], path: Path, *, tied: bool) -> Hyperparameters:
    """The hyperparameters in a config.json, with transformers' defaults for what it leaves out.

    Args:
        raw: the parsed file.
        path: the file, for messages.
        tied: whether the weights have no output matrix of their own; used where config.json does not say.

    Raises:
        StepError: the architecture cannot be exported, or has a feature that llama.cpp computes differently.
    """
    kind = (raw.get("architectures") or ["(none named)"])[0]
    if kind not in EXPORTABLE:
        raise StepError(
            f"{path}: architecture {kind} cannot be exported. Supported: {', '.join(EXPORTABLE)}. Choose a student of "
            "one of these, or use llama.cpp's own converter."
        )
    try:
        (entry, values), spec = settings(raw), from_config(raw)
    except ValueError as error:
        raise StepError(f"{path}: {error}. Save the checkpoint again.") from None
    context = int(values.get("max_position_embeddings") or _CONTEXT.get(kind, _QWEN_CONTEXT))
    _refuse(values, entry.name, context, path)
    layer = spec.attention[0]
    return Hyperparameters(
        architecture=entry.name,
        n_layers=spec.layers,
        context_length=context,
        hidden_size=spec.hidden,
        intermediate_size=spec.ffn,
        n_heads=layer.queries // layer.key,
        n_kv_heads=layer.kv_heads,
        head_dim=layer.key,
        rms_eps=float(values.get("rms_norm_eps", _RMS_EPS)),
        vocab_size=spec.vocab,
        tied=bool(raw.get("tie_word_embeddings", tied)),
        rope=_rope(values, entry.name, context, layer.key, path),
    )


def _refuse(values: Mapping[str, Any], architecture: str, context: int, path: Path) -> None:
    """Raise StepError for a model that would convert and then answer differently."""
    problems = []
    activation = values.get("hidden_act", "silu")
    if activation not in {"silu", "swish"}:
        problems.append(f"hidden_act {activation!r} is not SiLU, which llama.cpp's {architecture} computes")
    if "quantization_config" in values:
        problems.append("the weights are quantized already (quantization_config); export the checkpoint they came from")
    if architecture == "qwen3" and values.get("attention_bias"):
        problems.append("attention_bias is set, which llama.cpp's qwen3 has no tensors for; train without it")
    window = _sliding_window(values, architecture)
    if window is not None and window < context:
        problems.append(
            f"attention slides over {window} tokens, which llama.cpp's {architecture} does not do; set "
            f"max_position_embeddings to {window} if the student never reads more"
        )
    if problems:
        raise StepError(f"{path}: {problems[0]}.")


def _sliding_window(values: Mapping[str, Any], architecture: str) -> int | None:
    """Tokens that some layer looks back on; None where all layers attend to everything."""
    if architecture == "llama":
        return values.get("sliding_window")
    if not values.get("use_sliding_window"):
        return None
    kinds = values.get("layer_types")
    slides = (
        "sliding_attention" in kinds if kinds else values.get("max_window_layers", 28) < values["num_hidden_layers"]
    )
    return values.get("sliding_window", 4096) if slides else None


def _rope(values: Mapping[str, Any], architecture: str, context: int, head_dim: int, path: Path) -> Rope:
    """Rotary position embedding."""
    given = rope_settings(values)
    kind, theta = given["rope_type"], float(given["rope_theta"])
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise StepError(f"{path}: partial_rotary_factor is not 1, which llama.cpp's {architecture} cannot run.")
    own = values.get("original_max_position_embeddings")
    original = int(own or given.get("original_max_position_embeddings") or context)
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, kind, factor=float(given["factor"]))
    if kind == "llama3" and architecture == "llama":
        return Rope(theta, kind, divisors=_llama3_divisors(theta, head_dim, original, given))
    if kind == "yarn":
        factor = float(given.get("factor") or context / original)
        _refuse_own_yarn(given, 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0, path)
        return Rope(theta, kind, factor, original)
    raise StepError(
        f"{path}: rope type {kind!r} cannot be exported for {architecture}. Supported: default, linear, yarn, and "
        "llama3 for Llama. Train the student with one of these."
    )


def _refuse_own_yarn(given: Mapping[str, Any], attention_factor: float, path: Path) -> None:
    """Raise StepError for yarn with settings other than the paper's, which llama.cpp uses for every file."""
    usual = {"attention_factor": attention_factor, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    given = {key: given[key] for key in given if given[key] is not None}
    own = [key for key, value in usual.items() if not math.isclose(given.get(key, value), value, rel_tol=1e-3)]
    if given.get("mscale") and given.get("mscale_all_dim"):
        own.append("mscale")
    if own:
        raise StepError(
            f"{path}: yarn with its own {', '.join(own)} cannot be exported: llama.cpp runs every file with "
            f"{', '.join(f'{key} {value:.4g}' for key, value in usual.items())}. Leave the key out of rope_parameters "
            "and train the student that way."
        )


def _llama3_divisors(theta: float, head_dim: int, original: int, given: Mapping[str, Any]) -> NDArray[np.float32]:
    """What each frequency is divided by: 1 for short waves, `factor` for long ones, a blend between (Llama 3.1)."""
    factor, low, high = (float(given[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    blend = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    divisors: NDArray[np.float32] = (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)
    return divisors
