"""What an answer costs on the device and at the teacher's endpoint, and after how many the student has paid."""

from __future__ import annotations

import statistics
from typing import Any

from potstill.components.sizing.prices import Comparison, ListedPrice, compare, find_price
from potstill.core.recipe import Economy
from potstill.stages.report.charts import cost_chart
from potstill.stages.report.facts import Facts
from potstill.stages.report.words import number

__all__ = ["tell_cost"]

_HOUR = 3600.0


def tell_cost(facts: Facts) -> dict[str, Any] | None:
    """Sentences and a chart, by the speed and the tokens that were measured; None where no price is known.

    Training takes as long as it did here, at the price of an hour that the recipe declares.
    """
    price, economy = find_price(facts.recipe.teacher), facts.recipe.target.economy
    if price is None or not facts.answers:
        return None
    prompt, answer = (statistics.mean(row[key] for row in facts.answers) for key in facts.answers[0])
    run = facts.metrics["runtime"]
    seconds = run["ttft_ms"]["median"] / 1000 + answer / run["decode_tokens_per_s"]["median"]
    trained = sum((facts.trained.get(name) or {}).get("seconds", 0.0) for name in ("student", "control"))
    both = compare(
        facts.recipe.teacher,
        economy,
        rows=len(facts.answers),
        prompt=prompt,
        answer=answer,
        seconds=seconds,
        training_hours=trained / _HOUR,
    )
    assert both is not None  # there is a price
    says = _says(both)
    return {
        "rows": [
            ("The teacher's endpoint", f"{1e6 * both.by_api:,.2f}", price.says),
            ("This file on the device", f"{1e6 * both.on_device:,.2f}", f"{1000 * seconds:,.3g} ms an answer"),
        ],
        "says": says,
        "assumed": _assumed(economy, price, prompt, answer),
        "chart": cost_chart(both.once, both.on_device, both.by_api, both.break_even, says),
    }


def _says(both: Comparison) -> str:
    if both.break_even is None:
        return "The endpoint is cheaper, however many the answers."
    if not both.once:
        return "The device is cheaper from the first answer: nothing was spent before it."
    return (
        f"The student has paid for itself after {number(both.break_even)} answers: {number(both.once)} were spent "
        "before the first."
    )


def _assumed(economy: Economy, price: ListedPrice, prompt: float, answer: float) -> str:
    return (
        f"A prompt of {prompt:,.0f} and an answer of {answer:,.0f} tokens, the means of what the teacher was asked and "
        f"said; speed as measured above. Declared by the recipe, not measured: {economy.watts:g} W at "
        f"{economy.kwh_price:g} a kWh, a device of {economy.device_price:g} that is busy "
        f"{100 * economy.busy:g}\N{NO-BREAK SPACE}% of {economy.years:g} years, {economy.train_hour_price:g} an hour "
        f"of training, and {price.input:g} and {price.output:g} for 10\N{SUPERSCRIPT SIX} tokens in and out."
    )
