"""Two models on the items of a suite that both answered: their counts per slice, and the items that changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.components.suites.rates import ALL
from potstill.core.artifacts.counts import PairedCounts
from potstill.core.artifacts.release import Flip
from potstill.core.artifacts.suite_results import Conditions, ItemResult, SuiteResults
from potstill.core.errors import UsageError
from potstill.core.stats import drop_p_value, items_if_unchanged
from potstill.core.stats.beta import z_quantile
from potstill.core.stats.planning import POWER

__all__ = ["Pair", "flips", "more_items", "one_sided_p_value", "paired_items", "require_comparable", "slice_counts"]


@dataclass(frozen=True)
class Pair:
    """The two results of one item; labels are those of the later one."""

    before: ItemResult
    after: ItemResult

    @property
    def broken(self) -> bool:
        """Whether it was right and is wrong now."""
        return self.before.right and not self.after.right


def paired_items(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> list[Pair]:
    """The items that both models answered, in the order of the later one."""
    earlier = {item.item: item for item in before}
    return [Pair(earlier[item.item], item) for item in after if item.item in earlier]


def require_comparable(first: SuiteResults, second: SuiteResults, across: Sequence[str]) -> tuple[str, ...]:
    """The conditions that differ, all of which must be among `across`.

    Raises:
        UsageError: the results are of two suites, or were made under conditions that differ.
    """
    if first.suite != second.suite:
        raise UsageError(
            f"{first.model.name} was evaluated on {first.suite} and {second.model.name} on {second.suite}. Compare "
            "results of the same suite."
        )
    if unknown := [name for name in across if name not in Conditions.model_fields]:
        raise UsageError(f"{unknown[0]!r} is not a condition. Conditions are {', '.join(Conditions.model_fields)}.")
    differing = first.conditions.differences(second.conditions)
    if not_asked := [name for name in differing if name not in across]:
        shown = "; ".join(
            f"{name} {getattr(first.conditions, name)} and {getattr(second.conditions, name)}" for name in not_asked
        )
        flags = " ".join(f"--across {name}" for name in not_asked)
        raise UsageError(
            f"The results were made under different conditions ({shown}), so a difference would not be the model's "
            f"alone. Evaluate both in the same way, or add {flags} if this difference is meant."
        )
    return differing


def slice_counts(pairs: Sequence[Pair], tag: str, alpha: float) -> PairedCounts | None:
    """Counts of a tag's pairs, later model first, with the interval at 1 - 2 alpha; None without pairs."""
    found = [pair for pair in pairs if tag == ALL or tag in pair.after.tags]
    return PairedCounts.of(
        [pair.after.right for pair in found],
        [pair.before.right for pair in found],
        [pair.after.group for pair in found],
        1 - 2 * alpha,
    )


def one_sided_p_value(counts: PairedCounts) -> float:
    """Exact one-sided McNemar p-value of "no drop", with effective counts."""
    share = counts.effective / counts.n
    return drop_p_value(counts.broken * share, counts.fixed * share)


def more_items(counts: PairedCounts, margin: float, alpha: float, slices: int = 1) -> int | None:
    """About how many more items would decide with probability 0.8 if the shares stay; None: no number would.

    n = (z_a + z_b)^2 (discordance - drop^2) / (edge - drop)^2, where the edge is the margin for PASS and 0 for FAIL. A
    failure needs a p-value below alpha over the number of slices, which is Holm's strictest step. Where no item
    differs, n is the exact number that excludes the margin.
    """
    drop, differing = 0.0 - counts.gain, (counts.broken + counts.fixed) / counts.n
    if not differing:
        needed = items_if_unchanged(margin, alpha)
        found = [] if needed is None else [float(needed)]
    else:
        ways = [(margin, alpha)] * (drop < margin) + [(0.0, alpha / slices)] * (drop > 0)
        found = [_z(level) ** 2 * (differing - drop**2) / (edge - drop) ** 2 for edge, level in ways]
    if not found:
        return None
    return max(1, math.ceil(min(found) * counts.n / counts.effective) - counts.n)


def _z(alpha: float) -> float:
    return z_quantile(1 - alpha) + z_quantile(POWER)


def flips(pairs: Sequence[Pair]) -> tuple[Flip, ...]:
    """The items that changed: broken ones first, and core items first among them."""
    changed = sorted(
        (pair for pair in pairs if pair.before.right != pair.after.right),
        key=lambda pair: (not pair.broken, not pair.after.core),
    )
    return tuple(_flip(pair) for pair in changed)


def _flip(pair: Pair) -> Flip:
    after = pair.after
    return Flip(
        item=after.item,
        prompt=after.prompt,
        expected=after.expected,
        before=pair.before.text,
        after=after.text,
        broken=pair.broken,
        core=after.core,
        tags=after.tags,
    )
