"""Sizes of an encoder, and of a student that keeps some of its layers, from the headers of its weights alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from potstill.components.models.layers import even_layers
from potstill.components.models.safetensors import safetensors_shapes
from potstill.core.files import read_json_object

__all__ = ["EncoderSizes"]

_LAYER = re.compile(r"(?:^|\.)layers?\.(\d{1,6})\.")
_HEAD = ("classifier", "pre_classifier", "score")


@dataclass(frozen=True)
class EncoderSizes:
    """Parameters of an encoder by part.

    layers      per layer, in order
    embedding   shape of the word embeddings: tokens, hidden size
    head        of the classification head; 0 for a model without one
    rest        all others: positions, norms, pooler
    """

    layers: tuple[int, ...]
    embedding: tuple[int, int]
    head: int
    rest: int

    @classmethod
    def of(cls, folder: Path) -> EncoderSizes:
        """The sizes of a folder's model.

        Raises:
            RecipeError: the weights are absent or broken, or config.json is.
        """
        vocabulary = read_json_object(folder / "config.json").get("vocab_size")
        layers: dict[int, int] = {}
        embedding, head, rest = (0, 0), 0, 0
        for name, shape in safetensors_shapes(folder).items():
            count, layer = math.prod(shape), _LAYER.search(name)
            if layer:
                layers[int(layer[1])] = layers.get(int(layer[1]), 0) + count
            elif len(shape) == 2 and shape[0] == vocabulary and embedding == (0, 0):
                embedding = (shape[0], shape[1])
            elif name.startswith(_HEAD):
                head += count
            else:
                rest += count
        return cls(tuple(layers[i] for i in sorted(layers)), embedding, head, rest)

    def classifier(self, classes: int) -> EncoderSizes:
        """The same encoder with a linear head for some classes in place of what it has."""
        hidden = self.embedding[1]
        return EncoderSizes(self.layers, self.embedding, classes * hidden + classes, self.rest)

    def student(self, layers: int, vocabulary: int | None) -> EncoderSizes:
        """A student with evenly spaced layers, and the embeddings of fewer tokens."""
        tokens, hidden = self.embedding
        kept = tuple(self.layers[i] for i in even_layers(len(self.layers), layers))
        return EncoderSizes(kept, (min(tokens, vocabulary or tokens), hidden), self.head, self.rest)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(self.layers) + math.prod(self.embedding) + self.head + self.rest

    @property
    def multiplied(self) -> int:
        """Parameters that every token is multiplied with, which embeddings are not."""
        return self.parameters - math.prod(self.embedding)
