"""Whether distillation paid: the distilled student compared with its control."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.core.artifacts.metrics import ModelMetrics, PairedCounts
from potstill.core.format import format_number, format_p_value, format_points
from potstill.core.stats import mcnemar_exact, paired_drop_interval
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import unbroken

__all__ = ["DistillationSection", "SplitBar", "distillation_section"]


@dataclass(frozen=True)
class SplitBar:
    """Items that only the distilled student got right, and that only its control did."""

    gained: int
    lost: int


@dataclass(frozen=True)
class DistillationSection:
    """The answer in a word and some sentences; `bar` is None where both models have the same right answers."""

    tone: str
    word: str
    text: str
    bar: SplitBar | None = None


def distillation_section(facts: Facts) -> DistillationSection:
    """The distilled student against its control, on the same items or by fidelity."""
    control, pair = facts.metrics.models.control, facts.metrics.paired.student_vs_control
    if control is None:
        text = (
            "This student was trained on the teacher's text only, so a control would be the same model."
            if facts.inputs.objective == "sft"
            else "The recipe asks for no control (train.control: none), so the effect of distillation is unknown."
        )
        return DistillationSection("none", "Not measured", text)
    if pair and pair.n:
        return _by_items(pair, facts.inputs.alpha)
    return _by_fidelity(facts.metrics.models.student, control)


def _by_items(pair: PairedCounts, alpha: float) -> DistillationSection:
    lost, gained, n = pair.broken, pair.fixed, pair.n
    better, worse = mcnemar_exact(gained, lost), mcnemar_exact(lost, gained)
    bounds = paired_drop_interval(gained, lost, n)
    word, tone, lead = "No difference shown", "open", "These items do not show that distillation added anything."
    if better < alpha:
        word, tone, lead = "It paid", "pass", "Learning from the teacher's distributions beat learning from its text."
    elif worse < alpha:
        word, tone, lead = "It did not pay", "fail", "Plain fine-tuning on the teacher's text did better."
    text = (
        f"{lead} Both models have the same start, rows, steps and seed. Of {n:,} test items, the distilled student "
        f"gets {gained} right that the plainly fine-tuned one gets wrong, and {lost} wrong that the other gets right: "
        f"a gain of {_points((gained - lost) / n)} points (95 % interval {_points(bounds.low)} to "
        f"{_points(bounds.high)}; exact McNemar test, {format_p_value(min(better, worse))})."
    )
    bar = SplitBar(gained, lost) if gained + lost else None
    return DistillationSection(tone, word, unbroken(text), bar)


def _points(share: float) -> str:
    return format_points(share).replace("-", "\N{MINUS SIGN}")


def _by_fidelity(student: ModelMetrics, control: ModelMetrics) -> DistillationSection:
    a, b = student.fidelity, control.fidelity
    if a is None or b is None:
        text = "There are neither right answers to count nor distributions to compare."
        return DistillationSection("none", "Not measured", text)
    text = (
        "There are no right answers to count. The mean KL from the teacher is "
        f"{format_number(a.kl_mean)} nats for the distilled student and {format_number(b.kl_mean)} nats for the "
        "plainly fine-tuned one, with the same start, rows, steps and seed. "
    )
    apart, overlap = unbroken("Their 95 % intervals do not overlap."), unbroken("Their 95 % intervals overlap.")
    if a.kl_high < b.kl_low:
        return DistillationSection("pass", "It paid", text + apart)
    if b.kl_high < a.kl_low:
        return DistillationSection("fail", "It did not pay", text + apart)
    return DistillationSection("open", "No difference shown", text + overlap)
