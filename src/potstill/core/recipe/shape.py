"""The shape of a model that is trained from scratch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from potstill.core.recipe.fields import Count, Section

__all__ = ["Shape"]


class Shape(Section):
    """The shape of a model that starts from random weights."""

    architecture: Literal["llama", "qwen2", "qwen3"] = "llama"
    """Architecture by its name in transformers; default: llama."""
    layers: Count
    """Number of layers; required."""
    hidden: Count
    """Width of the residual stream, in channels; required."""
    ffn: Count
    """Width of each feed-forward block, in channels; required."""
    heads: Count
    """Number of query heads per layer; required."""
    kv_heads: Count | None = None
    """Number of key-value heads per layer; default: as many as query heads."""
    head_dim: Count | None = None
    """Width of one attention head, in channels; default: hidden / heads."""
    tied: bool = True
    """Whether input and output embeddings are one matrix; default: yes."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) is not a multiple of heads ({self.heads}); set head_dim")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads ({self.heads}) is not a multiple of kv_heads ({self.kv_heads})")
        return self
