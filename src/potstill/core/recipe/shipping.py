"""The recipe's sections on the file that ships: its format, and what is measured on it."""

from __future__ import annotations

from typing import Literal

from potstill.core.recipe.fields import Count, License, Positive, Section

__all__ = ["Evaluate", "Export", "Package", "Quantization"]

Quantization = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]


class Export(Section):
    """The GGUF file that ships."""

    quantization: Quantization = "Q8_0"
    """Number format of the weights, by llama.cpp's name; default: Q8_0."""
    parity_rows: Count = 8
    """Number of rows on which the converted file is compared with the checkpoint; default: 8."""
    parity_tolerance: Positive = 0.05
    """Maximum difference of log-probability between the F16 file and the checkpoint, in nats; default: 0.05."""


class Evaluate(Section):
    """What is measured on the shipped file, and on the models it is compared with."""

    threads: Count = 2
    """Number of threads of llama.cpp; default: 2."""
    fidelity_rows: Count = 32
    """Number of the teacher's answers over which the distributions of both models are compared; default: 32."""
    latency_requests: Count = 30
    """Number of timed requests; default: 30."""


class Package(Section):
    """What the package says about itself."""

    system: str | None = None
    """System message of the Modelfile; default: none."""
    license: License = "unknown"
    """SPDX identifier of the student's licence; default: unknown."""
