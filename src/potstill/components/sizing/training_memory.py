"""What training holds in memory, and what its checkpoints take on disk; in bytes."""

from __future__ import annotations

from potstill.components.models.spec import ModelSpec
from potstill.core.memory import loss_chunk_tokens

__all__ = ["checkpoint_bytes", "training_memory_bytes"]


def checkpoint_bytes(parameters: int) -> int:
    """Bytes of a training checkpoint: weights and AdamW's two moments in fp32."""
    return 12 * parameters


def training_memory_bytes(
    student: ModelSpec,
    batch_tokens: int,
    *,
    width: int = 256,
    bf16: bool = False,
    lora_rank: int | None = None,
    recompute: bool = False,
    teacher_bytes: int = 0,
    teacher_hidden: int = 0,
) -> dict[str, int]:
    """Peak memory of training by part. The first two parts are exact, the others and the sum are estimates.

    student       16 P: weights, gradients and AdamW's two moments in fp32; with LoRA 4 P, and 16 bytes for each
                  adapter parameter: rank x (inputs + outputs) of every matrix
    teacher       its weights (0 without one in memory)
    activations   kept for the backward pass, per token and layer: 4 FFN (gate, up, activation, product), 4 q (rotated
                  query, expanded key and value, output), 6 hidden (norms and residuals), one float for each of `width`
                  keys (mask); qwen3 2 q + 2 k more (norms of query and key). One more layer for the backward pass
                  itself. bf16 halves most of it: 3/4 of the bytes, as counted on transformers' modules. With
                  `recompute` each layer keeps only its input, except the one that is being computed.
    logits        one chunk of the loss (`loss_chunk_tokens`) x vocabulary, twice with a teacher; and the head's
                  gradient before it is added to that of other micro-batches

    Args:
        student: the model that is trained: a Llama, Qwen 2 or Qwen 3.
        batch_tokens: tokens of a micro-batch.
        width: positions of a packed sequence.
        bf16: whether training uses autocast to bfloat16.
        lora_rank: rank of the adapters; None trains all weights.
        recompute: activation checkpointing.
        teacher_bytes: bytes of the teacher's weights; 0 without one in memory.
        teacher_hidden: the teacher's hidden size; 0 where it computes no logits.
    """
    layer = student.attention[0]
    queries, keys, ffn = layer.queries, layer.kv_heads * layer.key, student.ffn
    token = 4 * ffn + 4 * queries + 6 * student.hidden + width
    if student.architecture == "qwen3":
        token += 2 * queries + 2 * keys
    kept = student.layers * student.hidden + 2 * token if recompute else (student.layers + 1) * token
    activations = 4 * batch_tokens * kept
    sides = 7 * student.hidden + 2 * queries + 2 * keys + 3 * ffn  # inputs and outputs of a layer's matrices
    trained = lora_rank * student.layers * sides if lora_rank else student.parameters
    buffers = (2 if teacher_hidden else 1) * loss_chunk_tokens(student.vocab, student.hidden, teacher_hidden)
    return {
        "student": 12 * trained + 4 * (student.parameters + (trained if lora_rank else 0)),
        "teacher": teacher_bytes,
        "activations": activations * 3 // 4 if bf16 else activations,
        "logits": 4 * student.vocab * (buffers + student.hidden),
    }
