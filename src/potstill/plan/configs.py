"""A Hugging Face config.json as an `Anatomy`: the tensors its GGUF will hold, and what a token leaves in the cache.

Followed: llama.cpp's converter for names and shapes, transformers for the values that a config leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from potstill.plan.anatomy import Anatomy, Attention

__all__ = ["FAMILIES", "from_config"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """How an architecture differs from a Llama.

    name         llama.cpp's
    biases       matrices that always have one; `attention_bias` and `mlp_bias` of the config add theirs
    qk_norm      queries and keys are normed, head by head
    post_norms   the outputs of attention and FFN are normed too
    fused        q, k, v are one matrix, and gate and up another
    pattern      every so many layers one looks at everything, the last of them; the others slide over a window
    defaults     what a config may leave out
    """

    name: str
    biases: tuple[str, ...] = ()
    qk_norm: bool = False
    post_norms: bool = False
    fused: bool = False
    pattern: int = 0
    defaults: Mapping[str, Any] | None = None


_GEMMA3 = {
    "vocab_size": 262208, "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 2304,
    "intermediate_size": 9216, "num_hidden_layers": 26, "sliding_window": 4096, "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}  # fmt: skip
_GEMMA2 = {"head_dim": 256, "sliding_window": 4096, "tie_word_embeddings": True}
_QKV = ("attn_q", "attn_k", "attn_v")
FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "MistralForCausalLM": Family("llama", defaults={"num_key_value_heads": 8}),
    "MixtralForCausalLM": Family("llama", defaults={"num_key_value_heads": 8, "num_experts_per_tok": 2}),
    "Qwen2ForCausalLM": Family("qwen2", biases=_QKV, defaults={"num_key_value_heads": 32}),
    "Qwen2MoeForCausalLM": Family("qwen2moe", biases=_QKV),
    "Qwen3ForCausalLM": Family("qwen3", qk_norm=True, defaults={"head_dim": 128, "num_key_value_heads": 32}),
    "Qwen3MoeForCausalLM": Family("qwen3moe", qk_norm=True, defaults={"head_dim": 128}),
    "Gemma2ForCausalLM": Family("gemma2", post_norms=True, pattern=2, defaults=_GEMMA2),
    "Gemma3ForCausalLM": Family("gemma3", qk_norm=True, post_norms=True, pattern=6, defaults=_GEMMA3),
    "Gemma3ForConditionalGeneration": Family("gemma3", qk_norm=True, post_norms=True, pattern=6, defaults=_GEMMA3),
    "Phi3ForCausalLM": Family("phi3", fused=True),
    "DeepseekV2ForCausalLM": Family("deepseek2"),
    "DeepseekV3ForCausalLM": Family("deepseek2"),
    "GptOssForCausalLM": Family("gpt-oss", biases=(*_QKV, "attn_output"), pattern=2),
}
"""transformers' class -> how it differs."""


class _Config:
    """A config.json with its defaults, that tells which key it misses."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def size(self, *keys: str, default: int | None = None) -> int:
        """The first of `keys` that is given.

        Raises:
            ValueError: none is given and there is no default, or it is not a positive integer.
        """
        found = next((self.values[k] for k in keys if self.values.get(k) is not None), default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise ValueError(f"config.json must give {' or '.join(keys)} as a positive integer, found {found!r}")
        return found

    def some(self, *keys: str) -> int:
        """As `size`, 0 where it is not there."""
        return int(next((self.values[k] for k in keys if self.values.get(k)), 0))


def from_config(values: Mapping[str, Any], name: str = "model") -> Anatomy:
    """The anatomy of a config.json.

    Raises:
        ValueError: the architecture is not known, or a size is absent or not a positive integer.
    """
    kind = (values.get("architectures") or ["(none named)"])[0]
    if kind not in FAMILIES:
        raise ValueError(
            f"architecture {kind} is not one of {', '.join(FAMILIES)}. Give its GGUF file instead: there each tensor "
            "is named"
        )
    family = FAMILIES[kind]
    inner = values.get("text_config") or {}
    own = {k: v for k, v in {**values, **inner}.items() if v is not None}
    config = _Config({**(family.defaults or {}), **own})
    layers = config.size("num_hidden_layers")
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    mla = family.name == "deepseek2"
    kv_heads = config.size("num_key_value_heads", default=heads)
    head_dim = 0 if mla else config.size("head_dim", default=hidden // heads)
    tensors: Shapes = {"token_embd.weight": (config.size("vocab_size"), hidden), "output_norm.weight": (hidden,)}
    if not config.values.get("tie_word_embeddings", False):
        tensors["output.weight"] = tensors["token_embd.weight"]
    if _scaled_rope(own):
        tensors = {"rope_freqs.weight": (head_dim // 2,), **tensors}
    for i in range(layers):
        part = _mla(config, hidden, heads) if mla else _attention(config, family, hidden, heads, kv_heads, head_dim)
        part |= _ffn(config, family, hidden, i)
        tensors |= {f"blk.{i}.{suffix}": dims for suffix, dims in part.items()}
    experts = config.some("num_local_experts", "n_routed_experts", "num_experts")
    return Anatomy(
        name=name,
        architecture=family.name,
        vocab=config.size("vocab_size"),
        hidden=hidden,
        attention=tuple(
            Attention(1, config.size("kv_lora_rank") + config.size("qk_rope_head_dim"), 0, heads * _mla_key(config))
            if mla
            else Attention(kv_heads, head_dim, head_dim, heads * head_dim, _window(config, family, i))
            for i in range(layers)
        ),
        tensors=tensors,
        context=config.some("max_position_embeddings") or None,
        experts=experts,
        used=config.size("num_experts_per_tok", "experts_per_token") if experts else 0,
        gqa=heads if mla else heads // kv_heads,
    )


def _scaled_rope(values: Mapping[str, Any]) -> bool:
    """Llama 3's rope scaling, for which a GGUF holds one more tensor."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return isinstance(rope, dict) and (rope.get("rope_type") or rope.get("type")) == "llama3"


def _window(config: _Config, family: Family, layer: int) -> int | None:
    """Tokens that a layer looks back on. llama.cpp slides only where the architecture alternates."""
    window = config.some("sliding_window")
    if not family.pattern or not window:
        return None
    kinds = config.values.get("layer_types")
    if kinds:
        return window if kinds[layer] == "sliding_attention" else None
    period = config.some("sliding_window_pattern") or family.pattern
    return window if layer % period < period - 1 else None


def _attention(config: _Config, family: Family, hidden: int, heads: int, kv_heads: int, head_dim: int) -> Shapes:
    queries, keys = heads * head_dim, kv_heads * head_dim
    biased = family.biases
    if config.values.get("attention_bias") and family.name in ("llama", "qwen3", "qwen3moe"):
        biased = (*_QKV, "attn_output")
    out: Shapes = {"attn_norm.weight": (hidden,)}
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
    """DeepSeek's attention on latents, with the up-projections split as llama.cpp's files have them."""
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


def _ffn(config: _Config, family: Family, hidden: int, layer: int) -> Shapes:
    norm = "post_attention_norm.weight" if family.name == "gpt-oss" else "ffn_norm.weight"
    out: Shapes = {norm: (hidden,)}
    experts = config.some("num_local_experts", "n_routed_experts", "num_experts")
    if experts and layer >= config.some("first_k_dense_replace"):
        out |= _experts(config, family, hidden, experts)
    else:
        width = config.size("intermediate_size")
        if family.fused:
            out |= {"ffn_up.weight": (2 * width, hidden)}
        else:
            out |= {"ffn_gate.weight": (width, hidden), "ffn_up.weight": (width, hidden)}
        out["ffn_down.weight"] = (hidden, width)
        if config.values.get("mlp_bias") and family.name == "llama":
            out |= {"ffn_gate.bias": (width,), "ffn_up.bias": (width,), "ffn_down.bias": (hidden,)}
    if family.post_norms:
        out["post_ffw_norm.weight"] = (hidden,)
    return out


def _experts(config: _Config, family: Family, hidden: int, experts: int) -> Shapes:
    width = config.size("moe_intermediate_size", "intermediate_size")
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
    shared = config.some("shared_expert_intermediate_size") or config.some("n_shared_experts") * width
    if shared:
        out |= {
            "ffn_gate_shexp.weight": (shared, hidden), "ffn_up_shexp.weight": (shared, hidden),
            "ffn_down_shexp.weight": (hidden, shared),
        }  # fmt: skip
        if family.name == "qwen2moe":
            out["ffn_gate_inp_shexp.weight"] = (hidden,)
    if config.values.get("topk_method") == "noaux_tc":
        out["exp_probs_b.bias"] = (experts,)
    return out
