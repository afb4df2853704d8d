"""The recipe's sections on the file that ships: its format, and what is measured on it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from potstill.core.recipe.fields import COSMETIC, Count, ModelfileText, Positive, Section

__all__ = ["Evaluate", "Export", "Finish", "Package", "Quantization"]

Quantization = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]

_PLAIN = ("F32", "F16", "BF16")


class Finish(Section):
    """A short training through the quantized format of the file: the quantized model learns the distributions of the
    checkpoint that it is made from."""

    steps: Count = 200
    """Number of optimizer steps; default: 200."""
    rows: Count = 8
    """Number of rows per step; default: 8."""
    learning_rate: Positive = 1e-5
    """Learning rate of the weights that are quantized; default: 1e-5."""
    norm_learning_rate: Positive = 1e-4
    """Learning rate of the weights that are stored in F32, such as norms; default: 1e-4."""


class Export(Section):
    """The GGUF file that ships."""

    quantization: Quantization = "Q8_0"
    """Number format of the weights, by llama.cpp's name; default: Q8_0."""
    parity_tolerance: Positive = 0.05
    """Maximum difference of log-probability between the F16 file and the checkpoint, in nats; default: 0.05."""
    finish: Finish | None = None
    """Train the quantized model for a few steps before it is written; default: no."""

    @model_validator(mode="after")
    def _finish_has_blocks(self) -> Self:
        if self.finish and self.quantization in _PLAIN:
            raise ValueError(
                f"finish trains through a quantized format, and {self.quantization} is none: leave finish out, or set "
                "quantization to Q8_0 or smaller"
            )
        return self


class Evaluate(Section):
    """What is measured on the shipped file, and on the models it is compared with."""

    threads: Annotated[Count, COSMETIC] = 2
    """Number of threads of llama.cpp; default: 2."""
    rows: Annotated[int, Field(ge=300)] = 300
    """Number of test rows, drawn at random, whose distributions are compared with the teacher's, at least 300; a
    shorter test file is compared whole; default: 300."""


class Package(Section):
    """What the package says about itself."""

    system: ModelfileText | None = None
    """System message of the Modelfile; default: none."""
