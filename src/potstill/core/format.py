"""Figures as people read them."""

from __future__ import annotations

__all__ = ["size_words"]


def size_words(nbytes: float) -> str:
    """Bytes in decimal units, as vendors count them."""
    if nbytes >= 1e9:
        return f"{nbytes / 1e9:,.2f} GB"
    size, unit = (nbytes / 1e6, "MB") if nbytes >= 1e6 else (nbytes / 1e3, "kB")
    return f"{size:,.{1 if size >= 10 else 2}f} {unit}"
