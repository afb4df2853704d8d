"""What memory and speed depend on: a model's tensors under GGUF's names, and what each layer keeps of a token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from potstill.components.models.gguf_types import QUANTIZATIONS, is_large, stored_bytes, tensor_type

__all__ = ["MOST_HEADS", "MOST_LAYERS", "MOST_SIZE", "MOST_TOKENS", "Anatomy", "Attention", "alignment", "block_of"]

_ALIGNMENT = 32
# more than any model has: what is above is a slip, and would be counted for hours
MOST_LAYERS = 1000
MOST_HEADS = 2**14
MOST_SIZE = 2**24
"""Of the hidden size, FFN and vocabulary."""
MOST_TOKENS = 2**40


def alignment(nbytes: int) -> int:
    """Bytes that a tensor takes in a file: its own, padded to 32."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


@cache
def block_of(name: str) -> int:
    """The block that a tensor is in; -1 outside of them."""
    return int(name.split(".", 2)[1]) if name.startswith("blk.") else -1


@dataclass(frozen=True)
class Attention:
    """One layer's attention, in elements.

    kv_heads, key, value    keys and values kept of a token: kv_heads x (key + value). MLA keeps one latent vector, out
                            of which values are read again: value is 0 there
    queries                 width of all queries together
    window                  tokens that are looked back on; None for all
    """

    kv_heads: int
    key: int
    value: int
    queries: int
    window: int | None = None


@dataclass(frozen=True)
class Anatomy:
    """A model as its GGUF file holds it.

    attention       by layer
    tensors         GGUF name -> dimensions, rows first; in the file's order
    types           of a file that exists; empty for a model that is still to be quantized
    header_bytes    of that file: everything before the tensors' data
    experts, used   of each expert layer, and how many of them a token goes through; 0 for a dense model
    """

    name: str
    architecture: str
    vocab: int
    hidden: int
    attention: tuple[Attention, ...]
    tensors: Mapping[str, tuple[int, ...]]
    context: int | None = None
    experts: int = 0
    used: int = 0
    gqa: int = 1
    types: Mapping[str, str] = field(default_factory=dict)
    header_bytes: int | None = None
    quantization: str | None = None
    """Of a file that exists."""

    @property
    def layers(self) -> int:
        """Transformer blocks."""
        return len(self.attention)

    @property
    def tied(self) -> bool:
        """The token embedding is the output matrix too."""
        return "output.weight" not in self.tensors

    @property
    def parameters(self) -> int:
        """Learned numbers; a tied matrix counts once."""
        return sum(math.prod(dims) for name, dims in self.tensors.items() if not name.startswith("rope_"))

    @property
    def widest(self) -> int:
        """FFN channels that a token goes through at once; shared experts come before or after the chosen ones."""
        widths = [0]
        for i in range(self.layers):
            dense = self.tensors.get(f"blk.{i}.ffn_up.weight", (0,))[0]
            down = self.tensors.get(f"blk.{i}.ffn_down.weight", (0,))[-1]
            dense = down if dense == 2 * down else dense  # gate and up can be one matrix
            routed = self.tensors.get(f"blk.{i}.ffn_up_exps.weight", (0, 0))[1] * self.used
            widths.append(max(dense, routed, self.tensors.get(f"blk.{i}.ffn_up_shexp.weight", (0,))[0]))
        return max(widths)

    @property
    def run_tensors(self) -> list[str]:
        """Names of those that a token goes through: a file may hold blocks more, which predict further tokens."""
        layers = self.layers
        return [name for name in self.tensors if block_of(name) < layers]

    def share_used(self, name: str) -> float:
        """Share of a tensor that decoding one token reads: the chosen experts, no more than a row of the embedding."""
        if "_exps." in name:
            return self.used / self.experts
        if name == "token_embd.weight" and not self.tied:
            return 1 / self.vocab
        return 1.0

    def quantized(self, quantization: str) -> Anatomy:
        """The model in a quantization; a file that exists is left as it is.

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
        """Of the file's weights."""
        return 8 * self.weight_bytes / self.parameters

    @property
    def data_bytes(self) -> int:
        """Bytes of the file after its header: weights, each padded to 32."""
        return sum(map(alignment, self.tensor_bytes().values()))
