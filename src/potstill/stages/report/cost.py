"""What an answer costs on the device and at the teacher's endpoint, and when the student has paid for itself."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.components.sizing.prices import Comparison, ListedPrice, compare
from potstill.core.format import format_number
from potstill.core.recipe import Economy
from potstill.stages.report.charts import cost_chart
from potstill.stages.report.facts import Facts

__all__ = ["CostSection", "cost_section"]

_HOUR = 3600.0


@dataclass(frozen=True)
class CostSection:
    """A sentence, a chart and a table of (name, cost of 10^6 answers, source); and what was assumed."""

    text: str
    rows: Sequence[tuple[str, str, str]]
    assumptions: str
    chart: Markup


def cost_section(facts: Facts) -> CostSection | None:
    """Costs from the measured speed and numbers of tokens; None where no price is known.

    Training takes as long as it did in this run, at the recipe's price per hour.
    """
    price, economy = facts.inputs.price, facts.inputs.economy
    if price is None or not facts.answers:
        return None
    prompt = statistics.mean(row.prompt_tokens or 0 for row in facts.answers)
    answer = statistics.mean(row.completion_tokens or 0 for row in facts.answers)
    run = facts.speed
    seconds = run.ttft_ms.median / 1000 + answer / run.decode_tokens_per_s.median
    trained = [summary.seconds for summary in (facts.trained.student, facts.trained.control) if summary]
    both = compare(
        price,
        economy,
        teacher_kind=facts.inputs.teacher_kind,
        rows=len(facts.answers),
        prompt=prompt,
        answer=answer,
        seconds=seconds,
        training_hours=sum(trained) / _HOUR,
    )
    assert both is not None  # the price is known
    text = _text(both)
    return CostSection(
        text=text,
        rows=[
            ("The teacher's endpoint", f"{1e6 * both.by_api:,.2f}", price.label),
            ("This file on the device", f"{1e6 * both.on_device:,.2f}", f"{1000 * seconds:,.3g} ms per answer"),
        ],
        assumptions=_assumptions(economy, price, prompt, answer),
        chart=cost_chart(both.once, both.on_device, both.by_api, both.break_even, text),
    )


def _text(both: Comparison) -> str:
    if both.break_even is None:
        return "The endpoint is cheaper for any number of answers."
    if not both.once:
        return "The device is cheaper from the first answer, because nothing was spent before it."
    return (
        f"The student has paid for itself after {format_number(both.break_even)} answers: {format_number(both.once)} "
        "were spent before the first one."
    )


def _assumptions(economy: Economy, price: ListedPrice, prompt: float, answer: float) -> str:
    return (
        f"The prompt has {prompt:,.0f} tokens and the answer {answer:,.0f}, the means of the teacher's prompts and "
        "answers; the speed is the measured one above. Declared in the recipe and not measured: "
        f"{economy.device_hour:g} per hour of the device, {economy.train_hour:g} per hour of training, and "
        f"{price.input:g} and {price.output:g} per 10\N{SUPERSCRIPT SIX} tokens of input and output."
    )
