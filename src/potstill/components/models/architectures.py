"""The one table of architectures: how each differs from a Llama, and which can be exported and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from potstill.core.words import printable

__all__ = [
    "ARCHITECTURES",
    "EXPORTABLE",
    "PRUNABLE",
    "QKV",
    "Architecture",
    "entry_of",
    "not_prunable",
    "not_supported",
    "rescaled",
    "unchecked",
]


@dataclass(frozen=True)
class Architecture:
    """One class of transformers, by its differences from a Llama.

    name         llama.cpp's name
    exportable   potstill writes it as GGUF, so a student can be of this class
    prunable     layers, hidden channels, FFN channels and key-value heads can be cut from it
    biases       matrices that always have a bias
    more_biases  the config's `attention_bias` and `mlp_bias` add more
    norm_biases  norms have a bias
    qk_norm      queries and keys are normalized head by head
    post_norms   the outputs of attention and FFN are normalized too
    fused        q, k and v are one matrix, and gate and up another
    experts      the FFN of a layer can be a mixture of experts
    mla          attention is DeepSeek's, over one latent vector per token
    pattern      in each run of this many layers the last attends to everything; the others slide over a window
    rope         the rope scaling for which the file holds a table of its own
    defaults     values that transformers takes where config.json leaves them out
    texts        model types that a `text_config` can name, each with the fields in which its entry differs
    """

    name: str
    exportable: bool = False
    prunable: bool = False
    biases: tuple[str, ...] = ()
    more_biases: bool = False
    norm_biases: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    fused: bool = False
    experts: bool = False
    mla: bool = False
    pattern: int = 0
    rope: str | None = None
    defaults: Mapping[str, Any] | None = None
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
_GEMMA3_ENTRY = Architecture(
    "gemma3", qk_norm=True, post_norms=True, pattern=6, defaults=_GEMMA3, texts={"gemma3_text": {}}
)
# the language model alone: images go through a file of their own, which llama.cpp calls mmproj
_QWEN_VL = Architecture(
    "qwen2vl", biases=QKV, defaults={"num_key_value_heads": 8}, texts={"qwen2_vl_text": {}, "qwen2_5_vl_text": {}}
)
_LLAMA4_ENTRY = Architecture(
    "llama4", experts=True, pattern=4, rope="llama3", defaults=_LLAMA4, texts={"llama4_text": {}}
)
# Ministral 3 is a Mistral in all but the scaling of its rope; Mistral Small 4 has the attention and experts of DeepSeek
_MISTRAL_TEXTS: dict[str, dict[str, Any]] = {
    "mistral": {}, "ministral3": {"name": "mistral3"}, "mistral4": {"name": "mistral4", "mla": True, "experts": True},
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", exportable=True, prunable=True, more_biases=True, rope="llama3"),
    # the same tensors and arithmetic as a Llama, but for its sliding window, which llama.cpp's llama does not have
    "MistralForCausalLM": Architecture(
        "llama", exportable=True, prunable=True, rope="llama3",
        defaults={"num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "Mistral3ForConditionalGeneration": Architecture(
        "llama", defaults={"num_key_value_heads": 8}, texts=_MISTRAL_TEXTS
    ),
    "MixtralForCausalLM": Architecture("llama", experts=True, defaults=_MIXTRAL),
    "SmolLM3ForCausalLM": Architecture("smollm3", defaults={"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "Llama4ForCausalLM": _LLAMA4_ENTRY,
    "Llama4ForConditionalGeneration": _LLAMA4_ENTRY,
    "Qwen2ForCausalLM": Architecture(
        "qwen2", exportable=True, prunable=True, biases=QKV, defaults={"num_key_value_heads": 32}
    ),
    "Qwen2VLForConditionalGeneration": _QWEN_VL,
    "Qwen2_5_VLForConditionalGeneration": _QWEN_VL,
    "Qwen2MoeForCausalLM": Architecture("qwen2moe", biases=QKV, experts=True, defaults=_QWEN_MOE),
    "Qwen3ForCausalLM": Architecture(
        "qwen3", exportable=True, prunable=True, more_biases=True, qk_norm=True,
        defaults={"head_dim": 128, "num_key_value_heads": 32},
    ),
    "Qwen3MoeForCausalLM": Architecture(
        "qwen3moe", more_biases=True, qk_norm=True, experts=True, defaults=_QWEN3_MOE
    ),
    "Gemma2ForCausalLM": Architecture("gemma2", post_norms=True, pattern=2, defaults=_GEMMA2),
    "Gemma3ForCausalLM": _GEMMA3_ENTRY,
    "Gemma3ForConditionalGeneration": _GEMMA3_ENTRY,
    "Phi3ForCausalLM": Architecture("phi3", fused=True, rope="longrope"),
    "PhimoeForCausalLM": Architecture(
        "phimoe", more_biases=True, norm_biases=True, experts=True, rope="longrope", defaults=_PHI_MOE
    ),
    "DeepseekV2ForCausalLM": Architecture("deepseek2", experts=True, mla=True),
    "DeepseekV3ForCausalLM": Architecture("deepseek2", experts=True, mla=True, defaults={"topk_method": "noaux_tc"}),
    "GptOssForCausalLM": Architecture(
        "gpt-oss", biases=(*QKV, "attn_output"), experts=True, pattern=2, defaults=_GPT_OSS
    ),
}  # fmt: skip
"""transformers' class -> its entry. Where several classes have one name of llama.cpp, the plainest comes first."""

EXPORTABLE = tuple(kind for kind, entry in ARCHITECTURES.items() if entry.exportable)
PRUNABLE = tuple(kind for kind, entry in ARCHITECTURES.items() if entry.prunable)

_CHECKED = {entry.name for entry in ARCHITECTURES.values()} | {
    *(fields["name"] for fields in _MISTRAL_TEXTS.values() if "name" in fields),
    "cohere2", "deepseek32", "exaone4", "gemma3n", "gemma4", "glm4moe", "laguna", "minimax-m2", "muse-glimmer", "olmo2",
    "smallthinker",
}  # fmt: skip
"""Architectures of GGUF files whose KV cache was compared with llama.cpp's own memory fit, or that the table has."""

_TASKS = ("Classification", "MaskedLM", "QuestionAnswering", "MultipleChoice", "PreTraining", "Regression", "Encoder")
_ENCODERS = ("bert", "t5", "bart", "electra", "mpnet", "longformer", "whisper", "clip", "marian", "pegasus")
_RECURRENT = (
    "mamba", "rwkv", "qwen3next", "qwen3_5", "jamba", "bamba", "zamba", "falconh1", "nemotronh", "recurrentgemma",
    "hybrid", "lfm2", "xlstm", "kimilinear", "minimaxforcausallm", "minimaxtext01",
)  # fmt: skip
_RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def not_supported(kind: str) -> str:
    """Why a class that is not in the table is not supported, and what to do."""
    low = kind.lower()
    if any(task in kind for task in _TASKS) or any(word in low for word in _ENCODERS):
        return (
            f"architecture {kind} is a classifier or an encoder; only decoders with a KV cache in every layer are "
            "supported. Give a model that generates text"
        )
    if any(word in low for word in _RECURRENT):
        return (
            f"architecture {kind} has recurrent layers; only decoders with a KV cache in every layer are supported. "
            "Give a model without recurrent layers"
        )
    return f"architecture {kind} is not known. Give the model's GGUF file instead, which names every tensor"


def entry_of(kind: str, text: Any = None) -> Architecture:
    """The entry of a class in the table, for the model type that the config's `text_config` names.

    Raises:
        ValueError: the class is not known to hold such a model.
    """
    entry = ARCHITECTURES[kind]
    if text is None:
        return entry
    if not isinstance(text, str) or text not in entry.texts:
        raise ValueError(
            f"text_config.model_type is {printable(repr(text), 60)}, but in a {kind} only these are known: "
            f"{', '.join(entry.texts) or 'none'}. Give the model's GGUF file instead, which names every tensor"
        )
    return replace(entry, **entry.texts[text])


def unchecked(architecture: str) -> str | None:
    """The warning about a GGUF file of an architecture that was not compared with llama.cpp; None where it was."""
    if architecture in _CHECKED:
        return None
    return (
        f"{architecture} is counted as a plain decoder, not checked: its KV cache, compute buffer and "
        "speed may be far off"
    )


def not_prunable(kind: str) -> str | None:
    """Why students cannot be cut from a class, and what to do; None where they can."""
    if kind in PRUNABLE:
        return None
    return (
        f"a student cannot be cut from {kind}; {', '.join(PRUNABLE)} can. Choose a teacher of one of these classes, or "
        "search with the config.json of one; a small model of the teacher's family can be named as student.model."
    )


def rescaled(config: Mapping[str, Any]) -> str | None:
    """The key of a config.json by which a model rescales its logits, so that the losses cannot train it; None if none.

    The losses compute logits as the plain product of hidden state and output matrix.
    """
    return next((key for key in _RESCALED if config.get(key)), None)
