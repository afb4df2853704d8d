"""The recipe's section on the device: its budgets."""

from __future__ import annotations

from potstill.core.recipe.fields import Positive, Section

__all__ = ["Target"]


class Target(Section):
    """The device that the student runs on, and its budgets."""

    device: str = "unnamed"
    """Name of the device, by which `potstill plan` knows its memory and speed; default: unnamed."""
    file_mb: Positive | None = None
    """Maximum size of the file, in MB (10^6 bytes); default: no limit."""
    memory_mb: Positive | None = None
    """Maximum peak resident memory, in MB (10^6 bytes); default: no limit."""
    ttft_ms: Positive | None = None
    """Maximum median time to the first token, in milliseconds; default: no limit."""
    decode_tokens_per_s: Positive | None = None
    """Minimum median speed of decoding, in tokens per second; default: no limit."""
