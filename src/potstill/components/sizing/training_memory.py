"""Memory of the stages that run a model in torch, and the size of training checkpoints; in bytes."""

from __future__ import annotations

from potstill.components.models.recipe_models import Model, Models
from potstill.components.models.spec import ModelSpec
from potstill.core.artifacts.check import MemoryNeed
from potstill.core.memory import loss_chunk_tokens
from potstill.core.recipe import Recipe, Schedule

__all__ = [
    "checkpoint_bytes",
    "memory_need",
    "saved_bytes_per_weight",
    "teacher_weight_bytes",
    "training_bytes",
    "training_memory_bytes",
]


_PROCESS = 475_000_000
"""Resident bytes of Python with torch and transformers after a small model was trained, on Linux without a GPU."""


def checkpoint_bytes(parameters: int) -> int:
    """Bytes of a training checkpoint: weights and AdamW's two moments in fp32."""
    return 12 * parameters


def training_bytes(parameters: int, validated: bool) -> int:
    """Bytes that a training needs on disk while it runs: two checkpoints may exist at once.

    With validation rows there are also the best weights that the last checkpoint knows of, the best since then, and
    those that are being written.
    """
    return 2 * checkpoint_bytes(parameters) + (3 * 4 * parameters if validated else 0)


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


def memory_need(recipe: Recipe, models: Models) -> MemoryNeed:
    """Memory of the stage that needs the most: finetune, generate or train. The part `process` is not on a GPU."""
    teaching = models.teacher if recipe.trains_with_teacher else None
    stages = {"train": _training(recipe.schedule, models.student, teaching, recipe)}
    if models.teacher:
        if recipe.teacher.finetune:
            stages["finetune"] = _training(recipe.finetune_schedule, models.teacher, None, recipe)
        stages["generate"] = _generating(recipe, models.teacher)
    stage = max(stages, key=lambda name: sum(stages[name].values()))
    parts = {**stages[stage], "process": _PROCESS}
    return MemoryNeed(stage=stage, parts=parts, needed=sum(parts.values()))


def _training(schedule: Schedule, model: Model, teacher: Model | None, recipe: Recipe) -> dict[str, int]:
    """Memory of training by part; for an unknown architecture only weights, gradients and moments."""
    if model.spec is None:
        return {"student": 16 * (model.parameters or 0)}
    return training_memory_bytes(
        model.spec,
        schedule.batch_tokens,
        width=min(256, recipe.chat.context),
        bf16=schedule.precision == "bf16",
        lora_rank=schedule.lora_rank,
        recompute=schedule.activation_checkpointing,
        teacher_bytes=teacher_weight_bytes(recipe, teacher.parameters or 0, teacher.spec) if teacher else 0,
        teacher_hidden=teacher.spec.hidden if teacher and teacher.spec and recipe.scores_online else 0,
    )


def _generating(recipe: Recipe, teacher: Model) -> dict[str, int]:
    """Memory of decoding by part: weights, the KV cache of a full batch, the logits of the last position."""
    width, batch = saved_bytes_per_weight(recipe), recipe.generate.batch_size
    return {
        "teacher": teacher_weight_bytes(recipe, teacher.parameters or 0, teacher.spec),
        "kv": teacher.spec.kv_elements * batch * recipe.chat.context * width if teacher.spec else 0,
        "logits": 3 * 4 * batch * teacher.padded_vocab,
    }


def saved_bytes_per_weight(recipe: Recipe) -> int:
    """Bytes per weight of the teacher as it is saved and computes."""
    return 4 if recipe.local_teacher.saved_dtype == "float32" else 2


def teacher_weight_bytes(recipe: Recipe, parameters: int, spec: ModelSpec | None) -> int:
    """Memory of the teacher's weights.

    In int8 the weights of the layers take one byte each, those of the embedding and the head two. Of layers that are
    offloaded to disk, one is in memory at a time.
    """
    teacher, width = recipe.local_teacher, saved_bytes_per_weight(recipe)
    if spec is None:
        return width * parameters
    ends = spec.vocab * spec.hidden * (1 if spec.tied else 2)
    layers = parameters - ends
    if teacher.offload == "disk":
        layers = -(-layers // spec.layers)
    return width * ends + (1 if teacher.dtype == "int8" else width) * layers
