"""Even spacing of layers: which of a model's layers stand for all of them."""

from __future__ import annotations

__all__ = ["even_layers"]


def even_layers(total: int, keep: int) -> tuple[int, ...]:
    """Numbers of `keep` of `total` layers, counted from 0: evenly spaced, the first and the last among them.

    Six of twelve are 0, 2, 4, 7, 9, 11, as in DistilBERT. One is the first. Where `keep` is more than `total`, some
    layers come more than once.

    Raises:
        ValueError: `total` or `keep` is less than 1.
    """
    if total < 1 or keep < 1:
        raise ValueError(f"cannot keep {keep} of {total} layers: both numbers must be at least 1")
    if keep == 1:
        return (0,)
    gap = (total - 1) / (keep - 1)
    return (*(round(place * gap) for place in range(keep - 1)), total - 1)
