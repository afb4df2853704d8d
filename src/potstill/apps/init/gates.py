"""Gates that the test rows of a new recipe can decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.recipe import Gates
from potstill.core.records import Behaviour, Row
from potstill.core.stats import independent_items, items_if_all_right, items_if_unchanged

__all__ = ["SuggestedGates", "suggested_gates"]

_RETENTION = (0.9, 0.8, 0.7, 0.5)
_DROP = (0.02, 0.05, 0.1)
_BEHAVIOUR = 0.8


@dataclass(frozen=True)
class SuggestedGates:
    """Thresholds; a gate that the test rows cannot decide is None or left out.

    items    number of independent test rows that say what is right
    """

    items: int
    retention: float | None
    quantization_drop: float | None
    behaviours: tuple[Behaviour, ...]


def suggested_gates(judged: Sequence[Row]) -> SuggestedGates | None:
    """The strictest usual gates that these test rows can pass if nearly all are right; None where none can.

    Half of the rows are taken as a reserve, because a student does not get every row right.
    """
    alpha = Gates().alpha
    enough = independent_items([row.group for row in judged]) / 2

    def can_show(needed: int | None) -> bool:
        return needed is not None and needed <= enough

    retention = next((share for share in _RETENTION if can_show(items_if_all_right(share, alpha))), None)
    drop = next((loss for loss in _DROP if can_show(items_if_unchanged(loss, alpha))), None)
    if retention is None:
        return None
    kinds = dict.fromkeys(row.behaviour for row in judged)
    gated = [name for name in kinds if _enough_of(judged, name, alpha)] if len(kinds) > 1 else []
    return SuggestedGates(int(2 * enough), retention, drop, tuple(sorted(gated)))


def _enough_of(judged: Sequence[Row], behaviour: Behaviour, alpha: float) -> bool:
    items = independent_items([row.group for row in judged if row.behaviour == behaviour])
    needed = items_if_all_right(_BEHAVIOUR, alpha)
    return needed is not None and items / 2 >= needed
