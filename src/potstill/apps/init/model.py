"""A model with random weights for a tokenizer: the start of a student or a teacher that is trained from scratch."""

from __future__ import annotations

from pathlib import Path

from potstill.core.recipe import Shape

__all__ = ["write_random_model"]


def write_random_model(folder: Path, shape: Shape, context: int, seed: int) -> int:
    """Write config.json and random weights next to a tokenizer's files.

    Args:
        folder: has the tokenizer's files.
        shape: sizes of the model.
        context: longest text in tokens.
        seed: the same seed gives the same weights.

    Returns:
        Number of parameters.
    """
    from transformers.utils.logging import disable_progress_bar

    from potstill.components.chat.format import load_chat
    from potstill.components.training.students import from_scratch

    disable_progress_bar()
    model = from_scratch(shape, load_chat(folder), context, seed)
    model.save_pretrained(folder)
    return int(model.num_parameters())
