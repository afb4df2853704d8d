"""What llama.cpp holds while it serves a model: weights, KV cache, compute buffer, the process itself.

Every formula here was fitted to, or read off, what llama.cpp logs and what the kernel counts (docs/plan.md). Bytes,
elements, tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from potstill.components.models.gguf_types import BLOCKS, bytes_per_element
from potstill.components.models.spec import Attention, ModelSpec
from potstill.core.errors import UsageError

__all__ = [
    "KV_TYPES", "MICRO_BATCH", "Memory", "compute_bytes", "kv_bytes", "memory", "odd_heads", "refuse_odd_heads",
    "slot_tokens",
]  # fmt: skip

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
MICRO_BATCH = 512
"""Prompt tokens llama.cpp computes at once (n_ubatch)."""
_PAD = 256
_PROCESS = 40_000_000
_TOKEN = 200
"""Of a vocabulary entry: its text and its places in the maps."""
_GPU_CONTEXT = {"cuda": 400 * 2**20, "hip": 400 * 2**20, "metal": 100 * 2**20, "vulkan": 100 * 2**20}
"""Of a backend with llama.cpp's kernels: 0.3 to 0.5 GiB are told of CUDA; Metal's and Vulkan's are assumed."""
_HEADER_TOKEN = 26
"""Of a vocabulary entry in a file's header: text, length, kind and its share of the merges; 18 to 41 are seen."""
# types whose rows the CPU backend copies into another order when eight of them fit together
_REPACKED = {
    "x86": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"),
    "arm": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"),
}


def slot_tokens(context: int) -> int:
    """Cells of one conversation: its context rounded up to 256."""
    return _PAD * math.ceil(context / _PAD)


def kv_bytes(spec: ModelSpec, context: int, kv_type: str = "f16", parallel: int = 1) -> int:
    """Keys and values of `parallel` conversations of `context` tokens each.

    A layer with a window keeps window + a micro-batch, rounded up to 256, and never more than the context.

    Raises:
        KeyError: the KV type is not known.
    """
    # an odd head that llama.cpp would refuse is counted all the same: `odd_heads`
    size = bytes_per_element(kv_type.upper())
    elements = sum(_cells(layer, context) * layer.kv_heads * (layer.key + layer.value) for layer in spec.attention)
    return math.ceil(elements * size) * parallel


def odd_heads(spec: ModelSpec, kv_type: str) -> int | None:
    """A head's size that the KV type's block does not divide, so that llama.cpp makes no such cache; None: it does."""
    block = BLOCKS[kv_type.upper()][0]
    sizes = (size for layer in spec.attention for size in (layer.key, layer.value))
    return next((size for size in sizes if size % block), None)


def refuse_odd_heads(spec: ModelSpec, kv_type: str) -> None:
    """Raise UsageError where llama.cpp makes no cache of that type for a model's heads."""
    if odd := odd_heads(spec, kv_type):
        raise UsageError(
            f"--kv-type {kv_type}: {spec.name} has heads of {odd}, which a cache in {kv_type} cannot hold (its "
            "blocks are of 32). Use f16."
        )


def _cells(layer: Attention, context: int) -> int:
    """Places for tokens in a layer's cache, of one conversation."""
    cells = slot_tokens(context)
    return cells if layer.window is None else min(cells, slot_tokens(layer.window + MICRO_BATCH))


def compute_bytes(spec: ModelSpec, context: int) -> int:
    """The compute buffer with flash attention, for a micro-batch of min(512, context) tokens.

    In fp32: the FFN's gate, up and product beside five arrays of the hidden size; or, of a model with wide attention
    and a narrow FFN, three arrays of the queries' width beside three of the hidden size. Then the attention mask in
    fp16, once for each width of cache. Logits are kept for the last token alone, and the last block's FFN sees that
    token alone too, so a model of one block has no wide FFN to hold.
    """
    tokens = min(MICRO_BATCH, slot_tokens(context))
    queries = max((layer.queries for layer in spec.attention), default=0)
    ffn_width = spec.ffn if spec.layers > 1 else 0
    ffn, attention = 3 * ffn_width + 5 * spec.hidden, 3 * queries + 3 * spec.hidden
    # each chosen expert's output, and the same weighted: within a sixth of what llama.cpp reserves
    experts = (2 * spec.experts_used + 3) * spec.hidden if spec.experts else 0
    masks = sum({_cells(layer, context) for layer in spec.attention})
    return 4 * tokens * max(ffn, attention, experts) + 2 * tokens * masks + 4 * spec.vocab


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    weights     the file: tensors, padding, header
    copies      tensors that the CPU backend keeps a second time in another order; their pages of the file can go
    kv, compute, overhead
    elsewhere   of all these, what is not on the card: llama.cpp looks up tokens on the host
    """

    weights: int
    copies: int
    kv: int
    compute: int
    overhead: int
    elsewhere: int = 0

    @property
    def total(self) -> int:
        """What the kernel counts as resident when nothing else wants the memory (VmHWM)."""
        return self.weights + self.copies + self.kv + self.compute + self.overhead

    @property
    def needed(self) -> int:
        """What must fit: the file's pages of copied tensors are dropped under pressure at no cost."""
        return self.total - self.copies - self.elsewhere


def _header(spec: ModelSpec) -> int:
    return spec.header_bytes or _HEADER_TOKEN * spec.vocab + 60 * len(spec.tensors)


def memory(
    spec: ModelSpec,
    context: int,
    *,
    kv_type: str = "f16",
    parallel: int = 1,
    backend: str = "x86",
    card: bool = False,
) -> Memory:
    """What a model with types holds on a backend: `x86` or `arm` for a CPU, a key of `_GPU_CONTEXT` for a GPU.

    Args:
        card: the GPU has a memory of its own, and the process, the header and an untied token embedding are not there.
    """
    copies = _copies(spec, _REPACKED[backend]) if backend in _REPACKED else 0
    process, header = _PROCESS + _TOKEN * spec.vocab, _header(spec)
    embedding = 0 if spec.tied else spec.tensor_bytes()["token_embd.weight"]
    return Memory(
        weights=spec.data_bytes + header,
        copies=copies,
        kv=kv_bytes(spec, context, kv_type, parallel),
        compute=compute_bytes(spec, context),
        overhead=process + _GPU_CONTEXT.get(backend, 0),
        elsewhere=process + header + embedding if card else 0,
    )


def _copies(spec: ModelSpec, kinds: tuple[str, ...]) -> int:
    """Bytes that are resident twice: copied tensors, whose pages lie between others that stay mapped.

    llama.cpp unmaps the file before the first and after the last tensor that it uses in place.
    """
    sizes = spec.tensor_bytes()
    copied = {
        name
        for name, dims in spec.tensors.items()
        if spec.types[name] in kinds and len(dims) > 1 and dims[-2] % 8 == 0 and name != "token_embd.weight"
    }
    names = list(spec.tensors)
    in_place = [i for i, name in enumerate(names) if name not in copied]
    if not in_place:
        return 0
    return sum(sizes[name] for name in names[in_place[0] : in_place[-1]] if name in copied)
