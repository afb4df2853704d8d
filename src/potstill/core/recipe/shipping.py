"""The recipe's sections on the file that ships: its format, and what is measured on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from potstill.core.recipe.fields import COSMETIC, Count, ModelfileText, Positive, Section

__all__ = ["Evaluate", "Export", "Package", "Quantization"]

Quantization = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]


class Export(Section):
    """The GGUF file that ships."""

    quantization: Quantization = "Q8_0"
    """Number format of the weights, by llama.cpp's name; default: Q8_0."""
    parity_tolerance: Positive = 0.05
    """Maximum difference of log-probability between the F16 file and the checkpoint, in nats; default: 0.05."""


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
