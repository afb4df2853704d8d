"""Whether distillation paid: the distilled student compared with its control."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.core.artifacts.counts import DifferenceWord, PairedCounts
from potstill.core.format import format_p_value, format_points_interval
from potstill.stages.report.facts import Facts
from potstill.stages.report.fidelity import kl_comparison
from potstill.stages.report.text import unbroken

__all__ = ["DistillationSection", "SplitBar", "distillation_section"]

_WORDS: dict[DifferenceWord, tuple[str, str, str]] = {
    "better": ("It paid", "pass", "Learning from the teacher's distributions beat learning from its text."),
    "worse": ("It did not pay", "fail", "Plain fine-tuning on the teacher's text did better."),
    "no difference shown": (
        "No difference shown",
        "open",
        "These items do not show that distillation added anything.",
    ),
}


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


def distillation_section(facts: Facts) -> DistillationSection | None:
    """The distilled student against its control, on the same items; None where the control itself ships, because the
    worth ladder compares both."""
    if facts.ships == "text" and facts.metrics.worth:
        return None
    control, pair = facts.metrics.models.control, facts.metrics.paired.student_vs_control
    if control is None:
        text = (
            "This student was trained on the teacher's text only, so a control would be the same model."
            if facts.inputs.objective == "sft"
            else "The recipe asks for no control (train.control: none), so the effect of distillation is unknown."
        )
        return DistillationSection("none", "Not measured", text)
    return _by_items(pair, facts.metrics.confidence) if pair else _without_items(facts)


def _by_items(pair: PairedCounts, level: float) -> DistillationSection:
    word, tone, lead = _WORDS[pair.word]
    gain = format_points_interval(pair.gain, pair.low, pair.high, level).replace("-", "\N{MINUS SIGN}")
    text = (
        f"{lead} Both models have the same start, rows, steps and seed. Of {pair.n:,} test items, the distilled "
        f"student gets {pair.fixed} right that the plainly fine-tuned one gets wrong, and {pair.broken} wrong that the "
        f"other gets right: a gain of {gain}; {format_p_value(pair.p_value)}."
    )
    bar = SplitBar(pair.fixed, pair.broken) if pair.fixed + pair.broken else None
    return DistillationSection(tone, word, unbroken(text), bar)


def _without_items(facts: Facts) -> DistillationSection:
    """What can be said without right answers: KL alone never shows that distillation paid."""
    lead = "There are no right answers to count, so whether distillation paid is unknown."
    return DistillationSection("none", "Not measured", f"{lead} {kl_comparison(facts.metrics)}".strip())
