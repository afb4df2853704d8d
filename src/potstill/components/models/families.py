"""The architectures whose tensors a config.json tells, and how each differs from a Llama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FAMILIES", "QKV", "Family", "refusal"]


@dataclass(frozen=True)
class Family:
    """How an architecture differs from a Llama.

    name         llama.cpp's
    biases       matrices that always have one
    more_biases  `attention_bias` and `mlp_bias` of the config add theirs
    norm_biases  norms have a bias beside their weight
    qk_norm      queries and keys are normed, head by head
    post_norms   the outputs of attention and FFN are normed too
    fused        q, k, v are one matrix, and gate and up another
    experts      the FFN of a layer can be a mixture of experts
    pattern      every so many layers one looks at everything, the last of them; the others slide over a window
    rope         the rope scaling for which the file holds a table of its own
    defaults     what a config may leave out
    """

    name: str
    biases: tuple[str, ...] = ()
    more_biases: bool = False
    norm_biases: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    fused: bool = False
    experts: bool = False
    pattern: int = 0
    rope: str | None = None
    defaults: Mapping[str, Any] | None = None


QKV = ("attn_q", "attn_k", "attn_v")
_GEMMA3 = {
    "vocab_size": 262208, "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 2304,
    "intermediate_size": 9216, "num_hidden_layers": 26, "sliding_window": 4096, "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}  # fmt: skip
_GEMMA2 = {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096, "tie_word_embeddings": True}
_QWEN_MOE = {"num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
             "shared_expert_intermediate_size": 5632, "num_key_value_heads": 16}  # fmt: skip
_QWEN3_MOE = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "num_key_value_heads": 4}
_MIXTRAL = {"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2}
_GPT_OSS = {"head_dim": 64, "num_key_value_heads": 8, "num_local_experts": 128, "num_experts_per_tok": 4,
            "sliding_window": 128}  # fmt: skip
_PHI_MOE = {"num_key_value_heads": 8, "num_local_experts": 16, "num_experts_per_tok": 2}
# llama.cpp slides over 8192 tokens where transformers' attention_chunk_size cuts them
_LLAMA4 = {"head_dim": 128, "num_key_value_heads": 8, "num_local_experts": 16, "num_experts_per_tok": 1,
           "intermediate_size_mlp": 16384, "sliding_window": 8192}  # fmt: skip
_GEMMA3_FAMILY = Family("gemma3", qk_norm=True, post_norms=True, pattern=6, defaults=_GEMMA3)
# the text alone: a picture goes through a file of its own, that llama.cpp calls mmproj
_QWEN_VL = Family("qwen2vl", biases=QKV, defaults={"num_key_value_heads": 8})
_LLAMA4_FAMILY = Family("llama4", experts=True, pattern=4, rope="llama3", defaults=_LLAMA4)

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama", more_biases=True, rope="llama3"),
    "MistralForCausalLM": Family("llama", defaults={"num_key_value_heads": 8}),
    "Mistral3ForConditionalGeneration": Family("llama", defaults={"num_key_value_heads": 8}),
    "MixtralForCausalLM": Family("llama", experts=True, defaults=_MIXTRAL),
    "SmolLM3ForCausalLM": Family("smollm3", defaults={"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "Llama4ForCausalLM": _LLAMA4_FAMILY,
    "Llama4ForConditionalGeneration": _LLAMA4_FAMILY,
    "Qwen2ForCausalLM": Family("qwen2", biases=QKV, defaults={"num_key_value_heads": 32}),
    "Qwen2VLForConditionalGeneration": _QWEN_VL,
    "Qwen2_5_VLForConditionalGeneration": _QWEN_VL,
    "Qwen2MoeForCausalLM": Family("qwen2moe", biases=QKV, experts=True, defaults=_QWEN_MOE),
    "Qwen3ForCausalLM": Family(
        "qwen3", more_biases=True, qk_norm=True, defaults={"head_dim": 128, "num_key_value_heads": 32}
    ),
    "Qwen3MoeForCausalLM": Family("qwen3moe", more_biases=True, qk_norm=True, experts=True, defaults=_QWEN3_MOE),
    "Gemma2ForCausalLM": Family("gemma2", post_norms=True, pattern=2, defaults=_GEMMA2),
    "Gemma3ForCausalLM": _GEMMA3_FAMILY,
    "Gemma3ForConditionalGeneration": _GEMMA3_FAMILY,
    "Phi3ForCausalLM": Family("phi3", fused=True, rope="longrope"),
    "PhimoeForCausalLM": Family(
        "phimoe", more_biases=True, norm_biases=True, experts=True, rope="longrope", defaults=_PHI_MOE
    ),
    "DeepseekV2ForCausalLM": Family("deepseek2", experts=True),
    "DeepseekV3ForCausalLM": Family("deepseek2", experts=True, defaults={"topk_method": "noaux_tc"}),
    "GptOssForCausalLM": Family("gpt-oss", biases=(*QKV, "attn_output"), experts=True, pattern=2, defaults=_GPT_OSS),
}
"""transformers' class -> how it differs."""

_TASKS = ("Classification", "MaskedLM", "QuestionAnswering", "MultipleChoice", "PreTraining", "Regression", "Encoder")
_ENCODERS = ("bert", "t5", "bart", "electra", "mpnet", "longformer", "whisper", "clip", "marian", "pegasus")
_RECURRENT = (
    "mamba", "rwkv", "qwen3next", "qwen3_5", "jamba", "bamba", "zamba", "falconh1", "nemotronh", "recurrentgemma",
    "hybrid", "lfm2", "xlstm", "kimilinear", "minimaxforcausallm", "minimaxtext01",
)  # fmt: skip


def refusal(kind: str) -> str:
    """Why a class that is none of `FAMILIES` cannot be planned, and what can."""
    low = kind.lower()
    if any(task in kind for task in _TASKS) or any(word in low for word in _ENCODERS):
        return (
            f"architecture {kind} is a classifier or an encoder, and a plan is of decoders with a KV cache in every "
            "layer. Give a model that generates text"
        )
    if any(word in low for word in _RECURRENT):
        return (
            f"architecture {kind} has recurrent layers, and a plan is of decoders with a KV cache in every layer. "
            "Give a model without such layers"
        )
    return f"architecture {kind} is not known. Give the model's GGUF file instead: there each tensor is named"
