"""Exact arithmetic of a model that can be trained here: parameters, KV cache, a GGUF's header; what training it holds.

Sizes are in bytes, shapes in elements, contexts in tokens. Nothing is loaded: neither torch nor a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from potstill.core.memory import loss_chunk_tokens
from potstill.core.recipe.recipe import Shape

__all__ = [
    "ARCHITECTURES",
    "ModelShape",
    "checkpoint_bytes",
    "gguf_header_bytes",
    "kv_cache_bytes",
    "parameter_count",
    "tensors",
    "training_memory_bytes",
]

# transformers' class -> llama.cpp's architecture, for those that can be exported
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# what transformers takes for num_key_value_heads where config.json leaves it out; a Llama has as many as heads
_KV_HEADS = {"MistralForCausalLM": 8, "Qwen2ForCausalLM": 32, "Qwen3ForCausalLM": 32}

_ALIGNMENT = 32
_FIXED_KEYS_BYTES = 1350
"""GGUF metadata beside the vocabulary and the template: 1,190 to 1,510 were measured, by how much a file tells of its
origin."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's sizes in elements. `context` is max_position_embeddings, None where config.json does not say."""

    architecture: str
    vocab: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    attention_bias: bool = False
    """llama, qwen3: biases of q, k, v and o; qwen2 always has those of q, k and v."""
    mlp_bias: bool = False
    rope_divisors: bool = False
    """Llama 3's rope scaling, for which a GGUF holds one more tensor."""
    context: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Shape from a config.json, with transformers' defaults for what it leaves out.

        Raises:
            ValueError: the architecture is not one of `ARCHITECTURES`, or a size is absent or not a positive integer.
        """
        name = (config.get("architectures") or ["(none named)"])[0]
        if name not in ARCHITECTURES:
            raise ValueError(f"architecture {name} is not one of {', '.join(ARCHITECTURES)}")
        for key in _NEEDED:
            if not isinstance(config.get(key), int) or config[key] < 1:
                raise ValueError(f"config.json must give {key} as a positive integer, found {config.get(key)!r}")
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim", 128 if name == "Qwen3ForCausalLM" else None) or hidden // heads
        biased = name in ("LlamaForCausalLM", "Qwen3ForCausalLM") and bool(config.get("attention_bias"))
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        return cls(
            architecture=ARCHITECTURES[name],
            vocab=config["vocab_size"],
            hidden=hidden,
            ffn=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", _KV_HEADS.get(name)) or heads,
            head_dim=head_dim,
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=biased,
            mlp_bias=name == "LlamaForCausalLM" and bool(config.get("mlp_bias")),
            rope_divisors=(rope.get("rope_type") or rope.get("type")) == "llama3",
            context=config.get("max_position_embeddings"),
        )

    @classmethod
    def from_recipe_shape(cls, shape: Shape, vocab: int, context: int | None = None) -> ModelShape:
        """Shape of a model that a recipe makes from scratch, with a vocabulary of `vocab` tokens."""
        return cls(
            architecture=shape.architecture,
            vocab=vocab,
            hidden=shape.hidden,
            ffn=shape.ffn,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads or shape.heads,
            head_dim=shape.head_dim or shape.hidden // shape.heads,
            tied=shape.tied,
            context=context,
        )


def tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Every parameter of the checkpoint by its name in transformers, with its dimensions; a tied head is left out."""
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    qkv_bias = shape.architecture == "qwen2" or shape.attention_bias
    matrices = {
        "self_attn.q_proj": (queries, hidden, qkv_bias),
        "self_attn.k_proj": (keys, hidden, qkv_bias),
        "self_attn.v_proj": (keys, hidden, qkv_bias),
        "self_attn.o_proj": (hidden, queries, shape.attention_bias),
        "mlp.gate_proj": (shape.ffn, hidden, shape.mlp_bias),
        "mlp.up_proj": (shape.ffn, hidden, shape.mlp_bias),
        "mlp.down_proj": (hidden, shape.ffn, shape.mlp_bias),
    }
    layer: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns, bias) in matrices.items():
        layer[f"{name}.weight"] = (rows, columns)
        if bias:
            layer[f"{name}.bias"] = (rows,)
    if shape.architecture == "qwen3":
        layer |= {"self_attn.q_norm.weight": (shape.head_dim,), "self_attn.k_norm.weight": (shape.head_dim,)}
    layer |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, hidden)}
    for i in range(shape.layers):
        out |= {f"model.layers.{i}.{name}": dims for name, dims in layer.items()}
    out["model.norm.weight"] = (hidden,)
    if not shape.tied:
        out["lm_head.weight"] = (shape.vocab, hidden)
    return out


def parameter_count(shape: ModelShape) -> int:
    """Parameters of the model; a tied head is counted once."""
    return sum(map(math.prod, tensors(shape).values()))


def kv_cache_bytes(shape: ModelShape, context: int, bytes_per_element: float = 2.0) -> int:
    """Keys and values of `context` tokens: 2 x layers x kv_heads x head_dim x context x bytes (F16 2, Q8_0 34/32)."""
    return math.ceil(2 * shape.layers * shape.kv_heads * shape.head_dim * context * bytes_per_element)


def gguf_header_bytes(shape: ModelShape, tokens: Iterable[str], merges: Iterable[str] | None, template: str) -> int:
    """Bytes of a GGUF file that are not weights (those are `Anatomy.weight_bytes`); within some hundred bytes.

    Args:
        shape: the model's.
        tokens: every token of the vocabulary; padding up to `shape.vocab` is added.
        merges: each as "left right"; None for a SentencePiece vocabulary, which has scores instead.
        template: the chat template's source.
    """
    texts = [len(token.encode()) for token in tokens]
    padding = range(len(texts), shape.vocab)
    vocabulary = sum(texts) + sum(len(f"[PAD{i}]") for i in padding) + shape.vocab * (8 + 4)
    pairs = 4 * shape.vocab if merges is None else sum(8 + len(merge.encode()) for merge in merges)
    # a tensor's entry: name, number of dimensions, dimensions, type, offset; its data starts at a multiple of 32
    names = 0
    for name, dims in tensors(shape).items():
        names += 8 + len(_gguf_name(name)) + 4 + 8 * len(dims) + 4 + 8
    rope = 8 + 18 + 4 + 8 + 4 + 8 + 2 * shape.head_dim if shape.rope_divisors else 0
    return _FIXED_KEYS_BYTES + vocabulary + pairs + len(template.encode()) + names + rope + _ALIGNMENT


def _gguf_name(name: str) -> str:
    """GGUF's name of a tensor (the length is what matters)."""
    short = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
        "self_attn.o_proj": "attn_output", "self_attn.": "attn_", "mlp.": "ffn_", "_proj": "",
        "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
    }  # fmt: skip
    for old, new in short.items():
        name = name.replace(old, new)
    return name


def checkpoint_bytes(parameters: int) -> int:
    """Bytes of a training checkpoint: weights and AdamW's two moments in fp32."""
    return 12 * parameters


def training_memory_bytes(
    student: ModelShape,
    batch_tokens: int,
    *,
    width: int = 256,
    bf16: bool = False,
    lora_rank: int | None = None,
    recompute: bool = False,
    teacher_bytes: int = 0,
    teacher_hidden: int = 0,
) -> dict[str, int]:
    """What training holds at its peak, in parts; their sum is an estimate, the first two parts are exact.

    student       16 P: weights, gradients and AdamW's two moments in fp32; with LoRA, 4 P and 16 for each of the
                  adapters' rank x (inputs + outputs) of every matrix
    teacher       its weights (0 without one in memory)
    activations   kept for the backward pass, a token and a layer: 4 FFN (gate, up, activation, product), 4 q (rotated
                  query, expanded key and value, output), 6 hidden (norms and residuals), one float for each of `width`
                  keys (mask); qwen3 2 q + 2 k more (norms of query and key). One layer more for the backward pass
                  itself. bf16 halves most of it: 3/4 of the bytes, counted on transformers' modules. With `recompute`
                  a layer keeps its input alone, but for the one at work.
    logits        a chunk of the loss (`loss_chunk_tokens`) x vocabulary, twice with a teacher, and the head's gradient
                  before it is added to that of other micro-batches

    Args:
        batch_tokens: tokens of a micro-batch.
        width: positions of a packed sequence.
        teacher_bytes: its weights, in what they are held in; 0: there is none in memory.
        teacher_hidden: its hidden size; 0 where it computes no logits.
    """
    queries, keys = student.heads * student.head_dim, student.kv_heads * student.head_dim
    token = 4 * student.ffn + 4 * queries + 6 * student.hidden + width
    if student.architecture == "qwen3":
        token += 2 * queries + 2 * keys
    kept = student.layers * student.hidden + 2 * token if recompute else (student.layers + 1) * token
    activations = 4 * batch_tokens * kept
    sides = 7 * student.hidden + 2 * queries + 2 * keys + 3 * student.ffn  # inputs and outputs of a layer's matrices
    trained = lora_rank * student.layers * sides if lora_rank else parameter_count(student)
    buffers = (2 if teacher_hidden else 1) * loss_chunk_tokens(student.vocab, student.hidden, teacher_hidden)
    return {
        "student": 12 * trained + 4 * (parameter_count(student) + (trained if lora_rank else 0)),
        "teacher": teacher_bytes,
        "activations": activations * 3 // 4 if bf16 else activations,
        "logits": 4 * student.vocab * (buffers + student.hidden),
    }
