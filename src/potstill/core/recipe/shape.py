"""The shape of a model that starts from random weights, written as one string."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self, get_args

from pydantic import PlainSerializer, PlainValidator

from potstill.core.words import nearest_hint

__all__ = ["Architecture", "Shape", "ShapeText"]

Architecture = Literal["llama", "qwen2", "qwen3"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a model: its architecture by transformers' name, and its sizes.

    `kv_heads` is by default as many as `heads`, and `head_dim` is hidden / heads. `tied`: whether input and output
    embeddings are one matrix.
    """

    architecture: Architecture = "llama"
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    tied: bool = True

    def __post_init__(self) -> None:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) is not a multiple of heads ({self.heads}); set head_dim")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads ({self.heads}) is not a multiple of kv_heads ({self.kv_heads})")

    @classmethod
    def parse(cls, text: object) -> Self:
        """A shape from the notation of `potstill fit`, such as llama:layers=4,hidden=256,ffn=704,heads=4,tied=1.

        Raises:
            ValueError: the text is not a shape; the message names the nearest architecture or size.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise ValueError("a shape is one string, such as llama:layers=4,hidden=256,ffn=704,heads=4,tied=1")
        architecture, _, listed = text.partition(":")
        if "=" in architecture:
            known_words = ", ".join(get_args(Architecture))
            raise ValueError(f"a shape starts with an architecture ({known_words}) and a colon, as in llama:{text}")
        if architecture not in get_args(Architecture):
            raise ValueError(
                f"there is no architecture {architecture!r}; {nearest_hint(architecture, get_args(Architecture))}"
            )
        sizes: dict[str, int] = {}
        known = tuple(field.name for field in fields(cls) if field.name != "architecture")
        for part in filter(None, listed.split(",")):
            name, _, number = (word.strip() for word in part.partition("="))
            if name not in known:
                raise ValueError(f"a shape has no size {name!r}; {nearest_hint(name, known)}")
            if not number.isdecimal() or (int(number) == 0 and name != "tied"):
                raise ValueError(f"{name}={number}: the size is not a whole number above 0")
            sizes[name] = int(number)
        missing = [name for name in ("layers", "hidden", "ffn", "heads") if name not in sizes]
        if missing:
            raise ValueError(f"the shape has no {missing[0]}; write it as llama:layers=4,hidden=256,ffn=704,heads=4")
        tied = bool(sizes.pop("tied", 1))
        return cls(architecture=architecture, tied=tied, **sizes)  # type: ignore[arg-type]

    def __str__(self) -> str:
        sizes = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "architecture"}
        listed = (f"{name}={int(size)}" for name, size in sizes.items() if size is not None)
        return f"{self.architecture}:{','.join(listed)}"


ShapeText = Annotated[Shape, PlainValidator(Shape.parse), PlainSerializer(str, return_type=str)]
"""A field that holds a shape, written as one string."""
