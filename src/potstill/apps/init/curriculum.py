"""The curriculum of a new recipe: quotas for what the examples show, and for how people send it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potstill.apps.init.guess import Answers
from potstill.core.tools import Tool

__all__ = ["curriculum_values"]

_ROWS = 20  # of each value
_FEWEST = 100  # of all values together
_MOST_VALUES = 300
_MESSY = 20  # one of so many rows has each kind of noise


def curriculum_values(name: str, task: str, answers: Answers, tools: Sequence[Tool]) -> dict[str, Any]:
    """What the template of a curriculum is filled with.

    Args:
        name: of the recipe.
        task: the task in words.
        answers: the rows and what their answers are.
        tools: tools that most rows have.
    """
    axis, values = _axis(answers, tools)
    rows = max(_ROWS, -(-_FEWEST // len(values)))
    total = rows * len(values)
    writes = ["slot_grid"] if axis == "tool" else ["self_instruct"]
    return {
        "name": name,
        "task": task,
        "axis": axis,
        "values": values,
        "rows": rows,
        "clean": total // 2,
        "few": max(5, total // _MESSY),
        "operators": [*writes, "paraphrase", "persona"],
        "limit": 4 * total,
    }


def _axis(answers: Answers, tools: Sequence[Tool]) -> tuple[str, list[str]]:
    """The axis that tells the tasks of the rows apart: their label, their tool, or else their behaviour."""
    kinds = zip(answers.rows, answers.kinds, strict=True)
    labels = {row.gold.equals[0] for row, kind in kinds if kind == "label" and row.gold and row.gold.equals}
    if 1 < len(labels) <= _MOST_VALUES:
        return "label", sorted(labels)
    if tools:
        return "tool", [tool["function"]["name"] for tool in tools][:_MOST_VALUES]
    return "behaviour", sorted({row.behaviour for row in answers.rows})
