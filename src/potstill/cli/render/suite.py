"""What `potstill evaluate` prints: the rate of each tag, the worst of them, and why answers are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from potstill.cli.render.tables import aligned
from potstill.components.suites.rates import rates, worst
from potstill.core.artifacts.answers import ERROR_NAMES
from potstill.core.artifacts.suite_results import ItemResult, SuiteResults
from potstill.core.format import format_count, format_interval, format_level, format_percent

__all__ = ["render_evaluation"]


def render_evaluation(results: SuiteResults, items: Sequence[ItemResult], confidence: float) -> str:
    """The page as text."""
    found = rates(items, confidence)
    rows = [("tag", "right", "rate", f"{format_level(confidence)} interval")]
    for each in found:
        right = f"{each.right:,} of {each.items:,}"
        rows.append((each.tag, right, format_percent(each.rate), format_interval(each.low, each.high, "rate")))
    version = f"version {results.suite_version}" if results.suite_version else "not frozen"
    draft = f", {format_count(results.drafts, 'draft item')}" if results.suite_version and results.drafts else ""
    lines = [f"{results.model.name} on {results.suite} ({version}{draft})", "", *aligned(rows)]
    if (low := worst(found)) and len(found) > 2:
        lines += ["", f"Worst: {low.tag}, {low.right:,} of {low.items:,} right."]
    if errors := Counter(item.error for item in items if item.error):
        listed = ", ".join(f"{ERROR_NAMES[error]} {count:,}" for error, count in errors.most_common())
        lines += ["", f"Wrong answers: {listed}."]
    return "\n".join(lines)
