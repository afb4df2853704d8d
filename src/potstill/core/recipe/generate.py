"""The recipe's section on how the teacher answers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from potstill.core.recipe.fields import Count, NotNegative, Section, Share

__all__ = ["Generate"]


class Generate(Section):
    """How models answer, in the training data and in the evaluation."""

    max_new_tokens: Count = 128
    """Maximum length of an answer, in tokens; default: 128."""
    temperature: NotNegative = 0.0
    """Sampling temperature, where 0 is greedy decoding; default: 0."""
    top_p: Share = 1.0
    """Probability mass of the nucleus that is sampled from; default: 1."""
    samples: Annotated[int, Field(ge=0)] = 1
    """Number of answers to each of data.prompts, each of which becomes a row to learn from, where more than one needs a
    temperature above 0, and 0 learns from the answers that the rows have without asking the teacher; default: 1."""
    batch_size: Count = 64
    """Number of rows that a local teacher decodes together; default: 64."""
    keep_truncated: bool = False
    """Whether answers cut off at max_new_tokens are kept and learnt without an end token, as text continuation needs;
    default: no."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"generate.samples: {self.samples} answers to a prompt are all the same at temperature 0: set "
                "generate.temperature, for example to 0.8, or leave samples out"
            )
        return self
