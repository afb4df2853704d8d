"""How close each model's distributions are to the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.artifacts.counts import difference_word
from potstill.core.artifacts.metrics import Metrics
from potstill.core.format import format_level, format_number
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import MODELS, interval, percent, unbroken

__all__ = ["FidelityRow", "FidelitySection", "fidelity_section", "kl_comparison"]

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
    """All models, over `tokens` tokens of `test_rows` test rows.

    bound        whether the true KL is at least the numbers shown
    comparison   the student's KL and its control's; empty without a control
    """

    rows: Sequence[FidelityRow]
    tokens: int
    test_rows: int
    bound: bool
    comparison: str


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
    first, bound = found[0][1], any(fidelity.lower_bound for _, fidelity in found)
    return FidelitySection(rows, first.tokens, first.rows, bound, kl_comparison(facts.metrics))


def kl_comparison(metrics: Metrics) -> str:
    """One sentence on the student's KL and its control's, on the same tokens; empty where it was not measured.

    It never says that distillation paid: the student was trained to be close to the teacher, and the control was not.
    """
    found = metrics.paired.student_vs_control_kl
    if found is None:
        return ""
    word = {"better": "farther from the teacher", "worse": "closer to the teacher"}.get(
        difference_word(found.low, found.high), "no difference shown"
    )
    return unbroken(
        f"On the same tokens, the mean KL of the distilled student minus that of the plainly fine-tuned one is "
        f"{format_number(found.kl)} nats ({format_level(metrics.confidence)} interval {interval(found.low, found.high)}"
        f"): {word}. This alone does not show that distillation paid, because the student was trained to be close to "
        "the teacher and the other was not."
    )
