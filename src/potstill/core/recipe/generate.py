"""The recipe's section on how the teacher answers."""

from __future__ import annotations

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
    batch_size: Count = 64
    """Number of rows that a local teacher decodes together; default: 64."""
    keep_truncated: bool = False
    """Whether answers cut off at max_new_tokens are kept and learnt without an end token, as text continuation needs;
    default: no."""
