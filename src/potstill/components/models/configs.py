"""A Hugging Face config.json as a `ModelSpec`: the tensors that its GGUF will hold, and what the KV cache keeps.

Names and shapes follow llama.cpp's converter; values that a config leaves out follow transformers. For a model that
reads images, the spec is of its language model: llama.cpp keeps the vision tower in another file (mmproj).
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from potstill.components.models.architectures import ARCHITECTURES, QKV, Architecture, entry_of, not_supported
from potstill.components.models.spec import MAX_HEADS, MAX_LAYERS, MAX_SIZE, MAX_TOKENS, Attention, ModelSpec

__all__ = ["EXPERTS", "from_config", "rope_settings", "rope_table", "settings"]

Shapes = dict[str, tuple[int, ...]]

EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")
_USED = ("num_experts_per_tok", "experts_per_token")
_WINDOWED = ("sliding_attention", "chunked_attention")
_LAYER_TYPES = (*_WINDOWED, "full_attention")
_MOST = {
    "num_hidden_layers": MAX_LAYERS, "num_attention_heads": MAX_HEADS, "num_key_value_heads": MAX_HEADS,
    "max_position_embeddings": MAX_TOKENS, "sliding_window": MAX_TOKENS, **dict.fromkeys(EXPERTS, MAX_HEADS),
}  # fmt: skip


class _Config:
    """A config.json with its defaults; errors name the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def named(self, keys: tuple[str, ...]) -> str:
        """The first of `keys` that the config has; the first of all where it has none."""
        return next((key for key in keys if self.values.get(key) is not None), keys[0])

    def size(self, *keys: str, default: int | None = None) -> int:
        """The value of the first of `keys` that the config has.

        Raises:
            ValueError: it has none and there is no default, or the value is not a positive integer, or it is too large.
        """
        key = self.named(keys)
        found = self.values.get(key, default)
        if found is None:
            raise ValueError(f"{' or '.join(keys)} is missing")
        if not _is_integer(found) or found < 1:
            raise ValueError(f"{key} must be a positive integer, found {reprlib.repr(found)}")
        most = _MOST.get(key, MAX_SIZE)
        if found > most:
            raise ValueError(f"{key} must be {most:,} at most, found {reprlib.repr(found)}")
        return int(found)

    def some(self, *keys: str) -> int:
        """Like `size`, but 0 where the key is absent or 0."""
        found = self.values.get(self.named(keys))
        return self.size(*keys) if found is not None and (found or not _is_integer(found)) else 0

    def flag(self, key: str) -> bool:
        """A boolean; False where the key is absent.

        Raises:
            ValueError: it is neither true nor false.
        """
        found = self.values.get(key, False)
        if not isinstance(found, bool):
            raise ValueError(f"{key} must be true or false, found {reprlib.repr(found)}")
        return found

    def items(self, key: str, kind: type) -> list[Any]:
        """A list; empty where the key is absent.

        Raises:
            ValueError: it is not a list, or an item is not of the kind.
        """
        found = self.values.get(key, [])
        if not isinstance(found, list) or not all(type(item) is kind for item in found):
            words = {int: "integers", str: "words"}[kind]
            raise ValueError(f"{key} must be a list of {words}, found {reprlib.repr(found)}")
        return found


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object in a config.json, without its null values; empty where the key is absent.

    Raises:
        ValueError: it is not an object.
    """
    found = values.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{key} must be an object ({{...}}), found {reprlib.repr(found)}")
    return {k: v for k, v in found.items() if v is not None}


def settings(values: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    """Architecture and values of a config.json, with those of its `text_config` and the architecture's defaults.

    A default is not taken for a key that the config sets to null, as in transformers.

    Raises:
        ValueError: the architecture or the model type of `text_config` is not known, `architectures` is not a list, or
            `text_config` is not an object.
    """
    kinds = values.get("architectures")
    if not isinstance(kinds, list | tuple) or not kinds or not isinstance(kinds[0], str):
        raise ValueError(f"architectures must be a list with the name of a class, found {reprlib.repr(kinds)}")
    if kinds[0] not in ARCHITECTURES:
        raise ValueError(not_supported(kinds[0] if len(kinds[0]) < 100 else kinds[0][:100] + "..."))
    text = _mapping(values, "text_config")
    family = entry_of(kinds[0], text.get("model_type"))
    own = {k: v for k, v in values.items() if v is not None} | text
    defaults = {key: value for key, value in (family.defaults or {}).items() if values.get(key, value) is not None}
    for names in (EXPERTS, _USED):
        if any(key in own for key in names):  # a config may use any of these names
            defaults = {key: value for key, value in defaults.items() if key not in names}
    return family, defaults | own


def from_config(values: Mapping[str, Any], name: str = "model") -> ModelSpec:
    """The spec of a config.json.

    Raises:
        ValueError: the architecture is not known, or a value is absent, of the wrong type, out of bounds, or
            contradicts another one; the message names the key.
    """
    family, all_values = settings(values)
    config = _Config(all_values)
    layers, hidden = config.size("num_hidden_layers"), config.size("hidden_size")
    heads, kv_heads, head_dim = _heads(config, family, values)
    mla = family.mla
    experts = config.some(*EXPERTS) if family.experts else 0
    mixed = [experts > 0 and _is_mixed(config, family, i) for i in range(layers)]
    attention = _mla(config, hidden, heads) if mla else _attention(config, family, hidden, heads, kv_heads, head_dim)
    # all layers of one kind have the same tensors
    parts = {kind: attention | _ffn(config, family, hidden, experts if kind else 0) for kind in set(mixed)}
    tensors = _outside(config, family, hidden, head_dim)
    for i in range(layers):
        tensors |= {f"blk.{i}.{suffix}": dims for suffix, dims in parts[mixed[i]].items()}
    return ModelSpec(
        name=name,
        architecture=family.name,
        vocab=config.size("vocab_size"),
        hidden=hidden,
        attention=tuple(
            Attention(1, config.size("kv_lora_rank") + config.size("qk_rope_head_dim"), 0, heads * _mla_key(config))
            if mla
            else Attention(kv_heads, head_dim, head_dim, heads * head_dim, window)
            for window in _windows(config, family, layers)
        ),
        tensors=tensors,
        context=config.some("max_position_embeddings") or None,
        experts=experts if any(mixed) else 0,
        experts_used=_experts_used(config, experts) if any(mixed) else 0,
        gqa=heads if mla else heads // kv_heads,
    )


def _heads(config: _Config, family: Architecture, values: Mapping[str, Any]) -> tuple[int, int, int]:
    """Query heads, key-value heads and head_dim (0 for MLA, which has none).

    Raises:
        ValueError: one does not divide the other.
    """
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    if family.mla:
        return heads, heads, 0
    kv_heads = config.size("num_key_value_heads", default=heads)
    if heads % kv_heads:
        given = any("num_key_value_heads" in part for part in (values, _mapping(values, "text_config")))
        taken = f"{kv_heads}" if given else f"{kv_heads} by default"
        raise ValueError(f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({taken})")
    if "head_dim" not in config.values and hidden % heads:
        raise ValueError(f"num_attention_heads ({heads}) must divide hidden_size ({hidden}) unless head_dim is given")
    return heads, kv_heads, config.size("head_dim", default=hidden // heads)


def _experts_used(config: _Config, experts: int) -> int:
    """Experts that a token is routed to.

    Raises:
        ValueError: the config does not have the key, or has fewer experts than that.
    """
    used = config.size(*_USED)
    if used > experts:
        raise ValueError(
            f"{config.named(_USED)} ({used}) must not exceed the number of experts, {config.named(EXPERTS)} ({experts})"
        )
    return used


def _is_mixed(config: _Config, family: Architecture, layer: int) -> bool:
    """Whether a layer's FFN is a mixture of experts (llama.cpp loads a Qwen only if every layer's is)."""
    if family.name in ("qwen2moe", "qwen3moe"):
        step = config.size("decoder_sparse_step", default=1)
        return layer not in config.items("mlp_only_layers", int) and (layer + 1) % step == 0
    if family.name == "llama4":
        return (layer + 1) % config.size("interleave_moe_layer_step", default=1) == 0
    return layer >= config.some("first_k_dense_replace")


def _outside(config: _Config, family: Architecture, hidden: int, head_dim: int) -> Shapes:
    """The tensors outside the layers."""
    vocab = config.size("vocab_size")
    out = _rope_tables(config, family, head_dim)
    out |= {"token_embd.weight": (vocab, hidden), "output_norm.weight": (hidden,)}
    if family.norm_biases:
        out["output_norm.bias"] = (hidden,)
    if not config.flag("tie_word_embeddings"):
        out["output.weight"] = (vocab, hidden)
    if family.name == "phimoe" and config.flag("lm_head_bias"):
        out["output.bias"] = (vocab,)
    return out


def rope_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary embedding of a config.json in the spelling of transformers 5, whatever version wrote it.

    Returns:
        `rope_type`, `rope_theta`, `partial_rotary_factor` where it is given, and the keys of the scaling.

    Raises:
        ValueError: `rope_parameters` or `rope_scaling` is not an object.
    """
    rope = _mapping(values, "rope_scaling") or _mapping(values, "rope_parameters")
    rope = {key: values[key] for key in ("rope_theta", "partial_rotary_factor") if values.get(key) is not None} | rope
    kind = rope.get("rope_type") or rope.get("type") or "default"
    return {"rope_theta": 10_000.0} | rope | {"rope_type": kind}


def rope_table(family: Architecture, values: Mapping[str, Any]) -> str | None:
    """The rope scaling for which a file holds a table: Llama 3's (`llama3`) or Phi's (`longrope`); None without one.

    Raises:
        ValueError: as for `rope_settings`.
    """
    kind = rope_settings(values)["rope_type"]
    return family.rope if family.rope == ("longrope" if kind == "su" else kind) else None


def _rope_tables(config: _Config, family: Architecture, head_dim: int) -> Shapes:
    """Divisors of the rotary frequencies, which a file holds for some scalings."""
    kind = rope_table(family, config.values)
    if kind == "llama3":
        return {"rope_freqs.weight": (head_dim // 2,)}
    factors = rope_settings(config.values).get("long_factor")
    pairs = len(factors) if isinstance(factors, list) else head_dim // 2
    return {"rope_factors_long.weight": (pairs,), "rope_factors_short.weight": (pairs,)} if kind else {}


def _windows(config: _Config, family: Architecture, layers: int) -> list[int | None]:
    """Tokens that each layer looks back on, None for all. llama.cpp slides only where the architecture alternates.

    Raises:
        ValueError: layer_types is not a list with one known word per layer.
    """
    window = config.some("sliding_window") if family.pattern else 0
    if not window:
        return [None] * layers
    kinds = config.items("layer_types", str)
    if kinds:
        if len(kinds) != layers:
            raise ValueError(f"layer_types has {len(kinds):,} entries, and num_hidden_layers is {layers}")
        unknown = next((kind for kind in kinds if kind not in _LAYER_TYPES), None)
        if unknown is not None:
            raise ValueError(f"layer_types has {reprlib.repr(unknown)}, which is not one of {', '.join(_LAYER_TYPES)}")
        return [window if kind in _WINDOWED else None for kind in kinds]
    period = config.some("sliding_window_pattern", "_sliding_window_pattern") or family.pattern
    return [window if layer % period < period - 1 else None for layer in range(layers)]


def _norm(family: Architecture, name: str, size: int) -> Shapes:
    out: Shapes = {f"{name}.weight": (size,)}
    return out | {f"{name}.bias": (size,)} if family.norm_biases else out


def _attention(config: _Config, family: Architecture, hidden: int, heads: int, kv_heads: int, head_dim: int) -> Shapes:
    queries, keys = heads * head_dim, kv_heads * head_dim
    biased = family.biases
    if family.more_biases and config.flag("attention_bias"):
        biased = (*QKV, "attn_output")
    out = _norm(family, "attn_norm", hidden)
    if family.fused:
        matrices = {"attn_qkv": (queries + 2 * keys, hidden), "attn_output": (hidden, queries)}
    else:
        matrices = {
            "attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
            "attn_output": (hidden, queries),
        }  # fmt: skip
    for name, dims in matrices.items():
        out[f"{name}.weight"] = dims
        if name in biased:
            out[f"{name}.bias"] = dims[:1]
    if family.qk_norm:
        out |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
    if family.post_norms:
        out["post_attention_norm.weight"] = (hidden,)
    if family.name == "gpt-oss":
        out["attn_sinks.weight"] = (heads,)
    return out


def _mla_key(config: _Config) -> int:
    return config.size("qk_nope_head_dim") + config.size("qk_rope_head_dim")


def _mla(config: _Config, hidden: int, heads: int) -> Shapes:
    """DeepSeek's latent attention, with the up-projections split as in llama.cpp's files."""
    rank, rope, key = config.size("kv_lora_rank"), config.size("qk_rope_head_dim"), config.size("qk_nope_head_dim")
    value, query_rank = config.size("v_head_dim"), config.some("q_lora_rank")
    out: Shapes = {"attn_norm.weight": (hidden,)}
    if query_rank:
        out |= {
            "attn_q_a.weight": (query_rank, hidden), "attn_q_a_norm.weight": (query_rank,),
            "attn_q_b.weight": (heads * (key + rope), query_rank),
        }  # fmt: skip
    else:
        out["attn_q.weight"] = (heads * (key + rope), hidden)
    return out | {
        "attn_kv_a_mqa.weight": (rank + rope, hidden), "attn_kv_a_norm.weight": (rank,),
        "attn_k_b.weight": (heads, rank, key), "attn_v_b.weight": (heads, value, rank),
        "attn_output.weight": (hidden, heads * value),
    }  # fmt: skip


def _ffn(config: _Config, family: Architecture, hidden: int, experts: int) -> Shapes:
    """A layer's FFN: a mixture of experts, or dense where `experts` is 0."""
    out = _norm(family, "post_attention_norm" if family.name == "gpt-oss" else "ffn_norm", hidden)
    if experts:
        out |= _mixture(config, family, hidden, experts)
    else:
        width = config.size("intermediate_size_mlp" if family.name == "llama4" else "intermediate_size")
        if family.fused:
            out |= {"ffn_up.weight": (2 * width, hidden)}
        else:
            out |= {"ffn_gate.weight": (width, hidden), "ffn_up.weight": (width, hidden)}
        out["ffn_down.weight"] = (hidden, width)
        if family.name == "llama" and family.more_biases and config.flag("mlp_bias"):
            out |= {"ffn_gate.bias": (width,), "ffn_up.bias": (width,), "ffn_down.bias": (hidden,)}
    if family.post_norms:
        out["post_ffw_norm.weight"] = (hidden,)
    return out


def _shared_width(config: _Config, family: Architecture, width: int) -> int:
    """FFN channels of the shared experts; 0 where there are none."""
    if family.name == "qwen2moe":
        return config.some("shared_expert_intermediate_size")
    if family.mla:
        return config.some("n_shared_experts") * width
    return width if family.name == "llama4" else 0


def _mixture(config: _Config, family: Architecture, hidden: int, experts: int) -> Shapes:
    own = family.mla or family.name in ("qwen2moe", "qwen3moe")
    width = config.size("moe_intermediate_size" if own else "intermediate_size")
    out: Shapes = {
        "ffn_gate_inp.weight": (experts, hidden),
        "ffn_gate_exps.weight": (experts, width, hidden),
        "ffn_up_exps.weight": (experts, width, hidden),
        "ffn_down_exps.weight": (experts, hidden, width),
    }
    if family.name == "gpt-oss":
        out["ffn_gate_inp.bias"] = (experts,)
        for name in ("gate", "up"):
            out[f"ffn_{name}_exps.bias"] = (experts, width)
        out["ffn_down_exps.bias"] = (experts, hidden)
    if shared := _shared_width(config, family, width):
        out |= {
            "ffn_gate_shexp.weight": (shared, hidden), "ffn_up_shexp.weight": (shared, hidden),
            "ffn_down_shexp.weight": (hidden, shared),
        }  # fmt: skip
        if family.name == "qwen2moe":
            out["ffn_gate_inp_shexp.weight"] = (hidden,)
    if family.mla and config.values.get("topk_method") == "noaux_tc":
        out["exp_probs_b.bias"] = (experts,)
    return out
