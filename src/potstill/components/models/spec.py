"""A model's description: its tensors under their GGUF names, and what each layer keeps in the KV cache.

Every number about a model (parameters, file size, KV cache, training memory, speed) is computed from a `ModelSpec`,
which is built from a config.json (`configs`), a GGUF file's header (`gguf_header`) or a shape string (`shapes`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from potstill.components.models.gguf_types import QUANTIZATIONS, is_large, stored_bytes, tensor_type

__all__ = ["MAX_HEADS", "MAX_LAYERS", "MAX_SIZE", "MAX_TOKENS", "Attention", "ModelSpec", "block_of", "padded_bytes"]

_ALIGNMENT = 32
# no model has more than these; a larger value is a mistake in a file, and would take hours to count
MAX_LAYERS = 1000
MAX_HEADS = 2**14
MAX_SIZE = 2**24
"""Largest hidden size, FFN width and vocabulary."""
MAX_TOKENS = 2**40


def padded_bytes(nbytes: int) -> int:
    """Bytes that a tensor of `nbytes` takes in a GGUF file, which pads each tensor to a multiple of 32."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


@cache
def block_of(name: str) -> int:
    """Index of the block that a tensor belongs to; -1 for a tensor outside the blocks."""
    return int(name.split(".", 2)[1]) if name.startswith("blk.") else -1


@dataclass(frozen=True)
class Attention:
    """Attention of one layer; sizes in elements.

    kv_heads, key, value    the cache keeps kv_heads x (key + value) elements per token. MLA keeps one latent vector
                            from which the values are computed again, so its value is 0
    queries                 width of all queries together
    window                  tokens that a token looks back on; None for all of them
    index                   further elements per token, by which DeepSeek's indexer chooses the tokens to attend to
    chosen                  number of tokens that the indexer chooses

    A layer that attends to the cache of an earlier layer has kv_heads 0.
    """

    kv_heads: int
    key: int
    value: int
    queries: int
    window: int | None = None
    index: int = 0
    chosen: int = 0

    @property
    def elements(self) -> int:
        """Elements that the cache keeps per token."""
        return self.kv_heads * (self.key + self.value) + self.index


@dataclass(frozen=True)
class ModelSpec:
    """A model as its GGUF file holds it.

    attention       one entry per layer
    tensors         GGUF name -> dimensions, rows first, in the file's order
    experts         number of experts in each expert layer; 0 for a dense model
    experts_used    number of experts that a token is routed to
    gqa             query heads per key-value head
    types           tensor types of an existing file or of a chosen quantization; empty before one is chosen
    header_bytes    size of everything before the tensors' data, where it is known
    quantization    name of the quantization, where there is one
    """

    name: str
    architecture: str
    vocab: int
    hidden: int
    attention: tuple[Attention, ...]
    tensors: Mapping[str, tuple[int, ...]]
    context: int | None = None
    experts: int = 0
    experts_used: int = 0
    gqa: int = 1
    types: Mapping[str, str] = field(default_factory=dict)
    header_bytes: int | None = None
    quantization: str | None = None

    @property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.attention)

    @property
    def tied(self) -> bool:
        """Whether the token embedding is the output matrix too."""
        return "output.weight" not in self.tensors

    def untied(self) -> ModelSpec:
        """The model with an output matrix of its own, without types."""
        head = {"output.weight": self.tensors["token_embd.weight"]}
        return replace(self, tensors=dict(self.tensors) | head, types={}, quantization=None)

    @property
    def parameters(self) -> int:
        """Number of parameters; a tied matrix counts once."""
        return sum(math.prod(dims) for name, dims in self.tensors.items() if not name.startswith("rope_"))

    @property
    def block_parameters(self) -> int:
        """Number of parameters without the token embedding and the output matrix."""
        outside = (self.tensors.get(name) for name in ("token_embd.weight", "output.weight"))
        return self.parameters - sum(math.prod(dims) for dims in outside if dims)

    @property
    def kv_elements(self) -> int:
        """Elements that the KV cache keeps for one token, over all layers."""
        return sum(layer.elements for layer in self.attention)

    @property
    def ffn(self) -> int:
        """FFN channels of the widest layer that a token goes through at once.

        Shared experts run before or after the routed ones, so their widths are not added.
        """
        widths = [0]
        for i in range(self.layers):
            dense = self.tensors.get(f"blk.{i}.ffn_up.weight", (0,))[0]
            down = self.tensors.get(f"blk.{i}.ffn_down.weight", (0,))[-1]
            dense = down if dense == 2 * down else dense  # gate and up can be one matrix
            routed = self.tensors.get(f"blk.{i}.ffn_up_exps.weight", (0, 0))[1] * self.experts_used
            widths.append(max(dense, routed, self.tensors.get(f"blk.{i}.ffn_up_shexp.weight", (0,))[0]))
        return max(widths)

    @property
    def run_tensors(self) -> list[str]:
        """Names of the tensors that a token goes through.

        A file may hold additional blocks that predict further tokens; they are not run.
        """
        layers = self.layers
        return [name for name in self.tensors if block_of(name) < layers]

    def looked_up(self, name: str) -> bool:
        """Whether a token reads one row of a tensor: an untied embedding, or that of every layer in Gemma 3n and 4."""
        return name == "per_layer_token_embd.weight" or (name == "token_embd.weight" and not self.tied)

    def share_used(self, name: str) -> float:
        """Share of a tensor that decoding one token reads: the routed experts, one row of what is looked up."""
        if "_exps." in name:
            return self.experts_used / self.experts
        if self.looked_up(name):
            return 1 / self.vocab
        return 1.0

    def quantized(self, quantization: str) -> ModelSpec:
        """The model in a quantization; an existing file keeps its own types.

        Raises:
            KeyError: the quantization is not known.
        """
        if self.types:
            return self
        assert quantization in QUANTIZATIONS, quantization
        layers, tied = self.layers, self.tied
        large = is_large(self.architecture, layers, self.gqa)
        types = {
            name: tensor_type(
                name, dims, quantization, layers=layers, tied=tied, gqa=self.gqa, experts=self.experts, large=large
            )
            for name, dims in self.tensors.items()
        }
        return replace(self, types=types, quantization=quantization)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {name: stored_bytes(dims, self.types[name]) for name, dims in self.tensors.items()}

    def tensor_bytes(self) -> Mapping[str, int]:
        """Bytes of each tensor, without padding; the model must have types."""
        return self._sizes

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, without header and padding."""
        return sum(self.tensor_bytes().values())

    @property
    def bits_per_weight(self) -> float:
        """Mean bits per weight of the file."""
        return 8 * self.weight_bytes / self.parameters

    @property
    def data_bytes(self) -> int:
        """Bytes of the file after its header: the weights, each padded to 32 bytes."""
        return sum(map(padded_bytes, self.tensor_bytes().values()))
