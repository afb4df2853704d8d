"""Gates that can never be decided, or never pass, with the test rows at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from potstill.components.checkers.judge import is_judged
from potstill.core.errors import RecipeError
from potstill.core.recipe import ClassifierGates, Recipe
from potstill.core.records import Row
from potstill.core.stats import Groups, independent_items, items_if_all_better, items_if_all_right, items_if_unchanged

__all__ = ["require_gates", "unreachable_classifier_gates", "unreachable_gates"]


def require_gates(recipe: Recipe, test: Sequence[Row]) -> None:
    """Check that the test rows have something to judge for each gate.

    Raises:
        RecipeError: a gate could never be judged.
    """
    gates, judged = recipe.gates, [row for row in test if is_judged(row)]
    advice = "so the gate could never be judged. Add such rows, or leave the gate out."
    for behaviour in gates.behaviours:
        if not any(row.behaviour == behaviour for row in judged):
            raise RecipeError(
                f"gates.behaviours.{behaviour}: {recipe.data.test} has no row of this behaviour that says what is "
                f"right, {advice}"
            )
    for name in ("exact", "retention", "quantization_drop", "beats_control"):
        if getattr(gates, name) not in (None, False) and not judged:
            raise RecipeError(
                f"gates.{name}: {recipe.data.test} has no row that says what is right (gold, or a completion), {advice}"
            )
    for name in ("kl_mean", "top1_agreement"):
        if getattr(gates, name) is not None and recipe.teacher.kind != "local":
            raise RecipeError(
                f"gates.{name}: an endpoint gives no whole distributions, so the gate could never be judged. Leave it "
                "out."
            )


def unreachable_gates(recipe: Recipe, test: Sequence[Row]) -> Iterator[str]:
    """A warning for each gate that the shipped file cannot pass, even if it gets every test row right.

    Leaked and unjudged rows do not count. Rows of a group count as one item, because they all have the same result.
    """
    gates, alpha = recipe.gates, recipe.gates.alpha
    judged = [row for row in test if is_judged(row)]
    groups: dict[str, Groups] = {"exact": [row.group for row in judged]}
    for behaviour in gates.behaviours:
        groups[f"behaviours.{behaviour}"] = [row.group for row in judged if row.behaviour == behaviour]
    minimums = {"exact": gates.exact} | {f"behaviours.{name}": value for name, value in gates.behaviours.items()}
    minimums["retention"] = gates.retention
    for name, minimum in minimums.items():
        items = independent_items(groups.get(name, groups["exact"]))
        if minimum is not None:
            yield from _unreachable_rate(f"gates.{name}", minimum, items, alpha)
    items = independent_items(groups["exact"])
    if gates.quantization_drop is not None:
        needed = items_if_unchanged(gates.quantization_drop, alpha)
        yield from _unreachable("gates.quantization_drop", f"a loss below {gates.quantization_drop:g}", items, needed)
    if gates.beats_control:
        yield from _unreachable("gates.beats_control", "a gain", items, items_if_all_better(alpha))
    if gates.top1_agreement is not None:
        rows = min(len(test), recipe.evaluate.rows)
        yield from _unreachable_rate("gates.top1_agreement", gates.top1_agreement, rows, alpha)


def unreachable_classifier_gates(gates: ClassifierGates, rows: int) -> Iterator[str]:
    """The same for a classifier with this number of scored test rows."""
    for name, minimum in {"exact": gates.exact, "retention": gates.retention}.items():
        if minimum is not None:
            yield from _unreachable_rate(f"gates.{name}", minimum, rows, gates.alpha)
    if gates.beats_control:
        yield from _unreachable("gates.beats_control", "a gain", rows, items_if_all_better(gates.alpha))


def _unreachable_rate(key: str, minimum: float, items: float, alpha: float) -> Iterator[str]:
    """A warning if this number of items, all of them right, does not show this minimum."""
    yield from _unreachable(key, f"a rate of {minimum:g}", items, items_if_all_right(minimum, alpha))


def _unreachable(key: str, demand: str, items: float, needed: int | None) -> Iterator[str]:
    if needed is None:
        yield f"{key}: no number of test rows can show {demand}, so this gate can never pass. Relax it."
    elif items < needed:
        yield (
            f"{key}: {items:,.0f} independent test rows cannot pass this gate, even with the best result: to show "
            f"{demand}, it needs at least {needed:,}. It would be INCONCLUSIVE. Add test rows, or relax the gate."
        )
