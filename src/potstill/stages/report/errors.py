"""Wrong answers by kind, and right answers by the expected tool, for every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.artifacts.answers import ERROR_NAMES
from potstill.stages.report.facts import Facts
from potstill.stages.report.quality import ModelKey, RateRow
from potstill.stages.report.text import MODELS, RateCell

__all__ = ["ErrorRow", "ErrorsSection", "errors_section"]


@dataclass(frozen=True)
class ErrorRow:
    """Number of wrong answers of one kind, by model."""

    name: str
    counts: Sequence[str]
    total: bool = False


@dataclass(frozen=True)
class ErrorsSection:
    """Wrong answers by kind, and exact matches by tool; `tools` is empty where no row asks for a call."""

    models: Sequence[ModelKey]
    kinds: Sequence[ErrorRow]
    tools: Sequence[RateRow]


def errors_section(facts: Facts) -> ErrorsSection | None:
    """Tables of errors and tools; None when no answer was judged."""
    present = {name: model for name, model in facts.metrics.models.present() if model.exact}
    models = list(present.values())
    if not any(model.errors or model.tools for model in models):
        return None
    kinds = [
        ErrorRow(name[0].upper() + name[1:], [f"{model.errors.get(kind, 0):,}" for model in models])
        for kind, name in ERROR_NAMES.items()
        if any(model.errors.get(kind) for model in models)
    ]
    totals = [f"{sum(model.errors.values()):,}" for model in models]
    tools = sorted({tool for model in models for tool in model.tools})
    rates = [[model.tools.get(tool) for model in models] for tool in tools]
    return ErrorsSection(
        models=[ModelKey(name, MODELS[name]) for name in present],
        kinds=[*kinds, ErrorRow("All wrong answers", totals, total=True)],
        tools=[
            RateRow(tool, [RateCell(rate) if rate else None for rate in found], total=False)
            for tool, found in zip(tools, rates, strict=True)
        ],
    )
