"""How close each model's distributions are to the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.format import format_number
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import MODELS, interval, percent

__all__ = ["FidelityRow", "FidelitySection", "fidelity_section"]

_AT_LEAST = "\N{GREATER-THAN OR EQUAL TO} "


@dataclass(frozen=True)
class FidelityRow:
    """One model."""

    key: str
    name: str
    kl_mean: str
    kl_interval: str
    kl_p99: str
    top1: str
    top1_interval: str


@dataclass(frozen=True)
class FidelitySection:
    """All models, over so many tokens; `bound` says that the true KL is at least the numbers shown."""

    rows: Sequence[FidelityRow]
    tokens: int
    bound: bool


def fidelity_section(facts: Facts) -> FidelitySection | None:
    """Fidelity of each model but the teacher; None when the teacher gives no distributions."""
    found = [(name, model.fidelity) for name, model in facts.metrics.models.present() if model.fidelity]
    if not found:
        return None
    rows = []
    for name, fidelity in found:
        least = _AT_LEAST if fidelity.lower_bound else ""
        rows.append(
            FidelityRow(
                key=name,
                name=MODELS[name],
                kl_mean=least + format_number(fidelity.kl_mean),
                kl_interval=interval(fidelity.kl_low, fidelity.kl_high),
                kl_p99=least + format_number(fidelity.kl_p99),
                top1=percent(fidelity.top1_agreement),
                top1_interval=interval(fidelity.top1_low, fidelity.top1_high, "rate"),
            )
        )
    return FidelitySection(rows, found[0][1].tokens, any(fidelity.lower_bound for _, fidelity in found))
