"""The recipe's section on the student: where its weights start."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from potstill.core.recipe.fields import Count, ModelName, Section, shorthand
from potstill.core.recipe.shape import ShapeText

__all__ = ["FromCheckpoint", "FromScratch", "Student", "TeacherLayers"]


class _Student(Section):
    """What every student has."""

    vocabulary: Literal["full", "workload"] = "full"
    """Tokens of the student: `full` (all of the tokenizer's) or `workload` (those in the generated rows, and enough
    others to write any text); default: full."""


class TeacherLayers(_Student):
    """A student that starts from parts of the teacher. At least one of its sizes is given."""

    init: Literal["teacher_layers"] = "teacher_layers"
    """Start of the weights: `teacher_layers`, `scratch` (random) or `checkpoint`; default: teacher_layers."""
    layers: Count | None = None
    """Number of the teacher's layers to keep; default: all."""
    layer_choice: Literal["even", "influence"] = "even"
    """Which layers to keep: `even` (evenly spaced, the first and the last among them) or `influence` (those that change
    their input most on the rows); default: even."""
    hidden: Count | None = None
    """Number of hidden channels to keep, by activation on the rows; default: all."""
    ffn: Count | None = None
    """Number of feed-forward channels to keep per layer, by activation on the rows; default: all."""
    kv_heads: Count | None = None
    """Number of key-value heads to keep per layer, each with the query heads that share it; default: all."""
    tied: bool | None = None
    """Whether input and output embeddings become one matrix, the input's; default: as in the teacher."""

    model: ClassVar[None] = None

    @property
    def needs_activations(self) -> bool:
        """Whether the teacher's activations decide which of its parts the student gets."""
        return self.layer_choice == "influence" or any((self.hidden, self.ffn, self.kv_heads))

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if not any((self.layers, self.hidden, self.ffn, self.kv_heads)):
            raise ValueError("init 'teacher_layers' needs layers, hidden, ffn or kv_heads")
        if self.layer_choice == "influence" and self.layers is None:
            raise ValueError("layer_choice: influence needs layers, the number of layers to keep")
        return self


class FromScratch(_Student):
    """A student that starts from random weights in a shape of its own."""

    init: Literal["scratch"]
    """Start of the weights: `teacher_layers`, `scratch` (random) or `checkpoint`; default: teacher_layers."""

    shape: ShapeText
    """Shape of the student, such as llama:layers=3,hidden=128,ffn=352,heads=4, with kv_heads, head_dim and tied where
    they differ from heads, hidden / heads and 1; required."""

    model: ClassVar[None] = None
    tied: ClassVar[None] = None
    needs_activations: ClassVar[Literal[False]] = False


class FromCheckpoint(_Student):
    """A student that starts from a model of its own."""

    init: Literal["checkpoint"]
    """Start of the weights: `teacher_layers`, `scratch` (random) or `checkpoint`; default: teacher_layers."""
    model: ModelName
    """Model folder, or hub id with an optional revision (ID@REVISION); with another tokenizer than the teacher's, the
    objective is forward_kl (over spans of text that both tokenizers cut alike) or sft; required."""
    tied: bool | None = None
    """Whether input and output embeddings become one matrix, the input's; default: as in the checkpoint."""

    needs_activations: ClassVar[Literal[False]] = False


Student = Annotated[
    TeacherLayers | FromScratch | FromCheckpoint, Field(discriminator="init"), shorthand("init", "teacher_layers")
]
