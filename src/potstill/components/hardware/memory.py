"""What llama.cpp holds in memory while it serves a model: weights, KV cache, compute buffer, and the process itself.

Each formula was read from llama.cpp's log or fitted to what the kernel counts (compared in benchmarks/README.md). Sizes
are in bytes, elements or tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from potstill.components.models.gguf_types import BLOCKS, bytes_per_element
from potstill.components.models.spec import Attention, ModelSpec
from potstill.core.errors import UsageError

__all__ = [
    "KV_TYPES", "MICRO_BATCH", "Memory", "compute_bytes", "indivisible_head", "kv_bytes", "memory",
    "require_kv_type", "slot_tokens",
]  # fmt: skip

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
MICRO_BATCH = 512
"""Prompt tokens that llama.cpp computes at once (n_ubatch)."""
_PAD = 256
_PROCESS = 40_000_000
_TOKEN = 200
"""Bytes per entry of the vocabulary: its text and its places in the maps."""
_GPU_CONTEXT = {"cuda": 400 * 2**20, "hip": 400 * 2**20, "metal": 100 * 2**20, "vulkan": 100 * 2**20}
"""Bytes of a backend with llama.cpp's kernels. CUDA users report 0.3 to 0.5 GiB; Metal and Vulkan are assumptions."""
_HEADER_TOKEN = 26
"""Header bytes per entry of the vocabulary: text, length, kind, share of the merges; 18 to 41 in known files."""
# types of which the CPU backend keeps a copy in another order, where eight rows fit together
_REPACKED = {
    "x86": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"),
    "arm": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"),
}


def slot_tokens(context: int) -> int:
    """Cells of one conversation: its context rounded up to 256."""
    return _PAD * math.ceil(context / _PAD)


def kv_bytes(spec: ModelSpec, context: int, kv_type: str = "f16", parallel: int = 1) -> int:
    """Keys and values of `parallel` conversations of `context` tokens each.

    A layer with a window keeps window + one micro-batch, rounded up to 256, and never more than the context. A size is
    given even where llama.cpp would refuse the type for the model's heads: see `indivisible_head`.

    Raises:
        KeyError: the KV type is not known.
    """
    size = bytes_per_element(kv_type.upper())
    elements = sum(_cells(layer, context) * layer.elements for layer in spec.attention)
    return math.ceil(elements * size) * parallel


def indivisible_head(spec: ModelSpec, kv_type: str) -> int | None:
    """Size of a head that the KV type's blocks do not divide, so that llama.cpp refuses the cache; None without one."""
    block = BLOCKS[kv_type.upper()][0]
    sizes = (size for layer in spec.attention for size in (layer.key, layer.value, layer.index))
    return next((size for size in sizes if size % block), None)


def require_kv_type(spec: ModelSpec, kv_type: str) -> None:
    """Raise UsageError where llama.cpp refuses a cache of that type for the model's heads."""
    if size := indivisible_head(spec, kv_type):
        raise UsageError(
            f"--kv-type {kv_type}: {spec.name} has heads of {size} elements, which a cache in {kv_type} cannot hold "
            "(its blocks have 32). Use f16."
        )


def _cells(layer: Attention, context: int) -> int:
    """Cells for tokens in a layer's cache, for one conversation."""
    cells = slot_tokens(context)
    return cells if layer.window is None else min(cells, slot_tokens(layer.window + MICRO_BATCH))


def compute_bytes(spec: ModelSpec, context: int, *, gpu: bool = False) -> int:
    """The compute buffer with flash attention, for a micro-batch of min(512, context) tokens.

    It is as large as the widest of these needs, each in fp32 and per token of the micro-batch, with the attention mask
    in fp16, once for each width of cache:

    - the FFN's gate, up and product, and five arrays of the hidden size;
    - wide attention: three arrays of the queries' width and three of the hidden size;
    - MLA: two latents for each head and eleven arrays of the hidden size;
    - experts: their product, their outputs, the same weighted, and three arrays of the hidden size;
    - an embedding for every layer (Gemma 3n and 4): this one of all layers, four arrays of the FFN's width and two of
      the hidden size;
    - on a GPU, the logits and two arrays of the hidden size. llama.cpp reserves them for every token of a micro-batch
      (its issue 23527), except in the newest builds of its server (pull request 23861).

    DeepSeek's indexer adds the numbers of the chosen tokens of every layer, and two arrays of scores as long as the
    cache.

    On a CPU logits are kept for the last token only, as its own memory fit says. The last block's FFN sees only that
    token, so a model of one block has no wide FFN to hold.
    """
    tokens = min(MICRO_BATCH, slot_tokens(context))
    queries = max((layer.queries for layer in spec.attention), default=0)
    width, hidden = spec.ffn if spec.layers > 1 else 0, spec.hidden
    needs = [3 * width + 5 * hidden, 3 * queries + 3 * hidden]
    if latent := spec.tensors.get("blk.0.attn_k_b.weight"):  # heads, latent, part of a head without position
        needs.append(2 * latent[0] * latent[1] + 11 * hidden)
    if spec.experts:
        widths = (dims[2] for name, dims in spec.tensors.items() if name.endswith("ffn_down_exps.weight"))
        needs.append(spec.experts_used * (2 * hidden + max(widths, default=0)) + 3 * hidden)
    if by_layer := spec.tensors.get("per_layer_token_embd.weight"):
        needs.append(by_layer[1] + 4 * width + 2 * hidden)
    masks = sum({_cells(layer, context) for layer in spec.attention})
    held = 4 * tokens * max(needs) + 2 * tokens * masks
    if any(layer.index for layer in spec.attention):
        numbers = sum(min(layer.chosen, slot_tokens(context)) for layer in spec.attention)
        held += 4 * tokens * (numbers + 2 * slot_tokens(context))
    return max(held, 4 * tokens * (spec.vocab + 2 * hidden)) if gpu else held + 4 * spec.vocab


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    weights     the file: tensors, padding, header
    copies      tensors that the CPU backend keeps a second time in another order
    kv, compute, overhead
    on_host     share of all these that a discrete GPU does not hold: llama.cpp looks up tokens on the host
    unread      share of the weights that llama.cpp does not load: blocks that predict further tokens
    """

    weights: int
    copies: int
    kv: int
    compute: int
    overhead: int
    on_host: int = 0
    unread: int = 0

    @property
    def total(self) -> int:
        """Resident memory as the kernel counts it while nothing else needs the memory (VmHWM)."""
        return self.weights + self.copies + self.kv + self.compute + self.overhead

    @property
    def needed(self) -> int:
        """Memory that the device must have: under pressure the kernel drops the file's pages of copied tensors."""
        return self.total - self.copies - self.on_host - self.unread


def memory(
    spec: ModelSpec,
    context: int,
    *,
    kv_type: str = "f16",
    parallel: int = 1,
    backend: str = "x86",
    discrete: bool = False,
) -> Memory:
    """What a model with types holds on a backend: `x86` or `arm` for a CPU, a key of `_GPU_CONTEXT` for a GPU.

    Args:
        spec: the model.
        context: tokens of one conversation.
        kv_type: type of the KV cache.
        parallel: conversations at once.
        backend: of llama.cpp.
        discrete: the GPU has memory of its own, which does not hold the process, the header and an untied embedding.
    """
    copies = _copies(spec, _REPACKED[backend]) if backend in _REPACKED else 0
    process = _PROCESS + _TOKEN * spec.vocab
    header = spec.header_bytes or _HEADER_TOKEN * spec.vocab + 60 * len(spec.tensors)
    sizes = spec.tensor_bytes()
    embedding = 0 if spec.tied else sizes["token_embd.weight"]
    return Memory(
        weights=spec.data_bytes + header,
        copies=copies,
        kv=kv_bytes(spec, context, kv_type, parallel),
        compute=compute_bytes(spec, context, gpu=backend in _GPU_CONTEXT),
        overhead=process + _GPU_CONTEXT.get(backend, 0),
        on_host=process + header + embedding if discrete else 0,
        unread=sum(sizes[name] for name in sizes.keys() - spec.run_tensors),
    )


def _copies(spec: ModelSpec, kinds: tuple[str, ...]) -> int:
    """Bytes that are resident twice: copied tensors whose pages lie between others that stay mapped.

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
