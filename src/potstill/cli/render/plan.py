"""The plan of a recipe, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.apps.plan.classifier import ClassifierPlan
from potstill.apps.plan.recipe import AnswerCost, Cost, RecipePlan
from potstill.cli.render.licences import render_licences
from potstill.cli.render.tables import aligned
from potstill.components.sizing.cost import Hours, Training
from potstill.core.format import format_count, format_duration, format_large, format_price, format_size, format_speed
from potstill.core.recipe import Economy

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_classifier_plan", "render_plan"]


def render_plan(plan: RecipePlan) -> RenderableType:
    """The student in every quantization, what it costs, and whether it may be shipped."""
    from rich.console import Group
    from rich.text import Text

    sizes = [Text(line, style="bold" if place < 2 else "") for place, line in enumerate(_sizes(plan))]
    head = Text("Costs, in the currency of the prices", style="bold")
    lines = [*_teacher(plan.cost), *_training(plan.cost.training), *_answers(plan.cost), *_assumed(plan.cost.assumed)]
    return Group(*sizes, *map(Text, plan.notes), "", head, *map(Text, lines), "", render_licences(plan.licences))


def render_classifier_plan(plan: ClassifierPlan) -> RenderableType:
    """Sizes of a classifier's teacher and student, the time of training, and whether the student may be shipped."""
    from rich.console import Group
    from rich.text import Text

    share = plan.student_parameters / plan.teacher_parameters
    cells = [
        ["", "parameters", "weights in fp32"],
        ["teacher", format_large(plan.teacher_parameters), format_size(plan.teacher_bytes)],
        ["student", format_large(plan.student_parameters), format_size(plan.student_bytes)],
    ]
    head = f"{plan.name}: a classifier of {plan.classes} classes with {share:.1%} of its teacher's parameters"
    lines = [
        *aligned(cells),
        f"{format_count(plan.rows, 'row')} to train on, {format_count(plan.tokens, 'token')} per epoch",
        f"{plan.operations:.2g} operations: {_span(plan.hours)} on {plan.machine}",
    ]
    return Group(Text(head, style="bold"), *map(Text, lines), "", render_licences(plan.licences))


def _sizes(plan: RecipePlan) -> list[str]:
    """Title, head and a line per quantization, the recipe's own marked; then what they hold for."""
    share = f", {plan.params_student / plan.params_teacher:.1%} of the teacher's" if plan.params_teacher else ""
    timed = plan.quantizations[0].decode_tokens_per_s is not None
    cells = [["", "type", "weights", "bits", "memory", *["tokens/s"] * timed]]
    for row in plan.quantizations:
        sizes = format_size(row.weight_bytes), f"{row.bits_per_weight:.2f}", format_size(row.memory_bytes)
        rate = [format_speed(*row.decode_tokens_per_s, "-")] if row.decode_tokens_per_s else []
        cells.append(["*" * row.chosen, row.quantization, *sizes, *rate])
    head, *lines = aligned(cells, left=(0, 1))
    judged = ("fits" if row.fits else f"misses {', '.join(row.missed)}" for row in plan.quantizations)
    known = f"on {plan.device}" if timed else f"The speed of {plan.device!r} is not known: give --device."
    return [
        f"{plan.name}: a student of {plan.params_student / 1e6:,.2f} million parameters{share}",
        f"{head}  target",
        *(f"{line}  {words}" for line, words in zip(lines, judged, strict=True)),
        f"*: the recipe's; bits: per weight; {format_count(plan.context, 'token')} of context, "
        f"{format_size(plan.kv_bytes)} of KV cache",
        known,
    ]


def _teacher(cost: Cost) -> list[str]:
    tokens = f"{format_count(cost.prompt_tokens, 'token')} in and {cost.answer_tokens:,} out"
    lines = [
        f"teacher    {format_count(cost.rows, 'row')}, about {tokens}",
        f"           (length of an answer: {cost.answer_length})",
    ]
    if cost.stored:
        lines.append(f"           {format_count(cost.stored, 'more row')} answered by earlier runs")
    if cost.own:
        lines.append(f"           {format_count(cost.own, 'more row')} with answers of their own")
    if cost.teacher_price is not None:
        lines.append(f"           {format_price(cost.teacher_price)} at the endpoint ({cost.price_source})")
    elif cost.endpoint:
        lines.append(f"           no price is listed for this model at {cost.endpoint}:")
        lines.append("           set prices, as {input: 2.0, output: 8.0} for 10^6 tokens of each")
    return lines


def _training(training: Training) -> list[str]:
    lines = [f"training   {training.operations:.2g} operations: {_span(training.hours)} on {training.machine}"]
    lines += [f"           {_span(hours)} for the answers of the {who}" for who, hours in training.writing.items()]
    if training.memory:
        peak = format_size(training.memory.needed)
        lines.append(f"           {peak} of memory at the peak (stage {training.memory.stage})")
    targets = f", {format_size(training.target_bytes)} of it for targets" if training.target_bytes else ""
    lines.append(f"           {format_size(training.disk_bytes)} of disk{targets}")
    return lines


def _span(hours: Hours) -> str:
    low, high = (3600 * end for end in hours)
    return format_duration(low, high) if high >= 60 else "less than a minute"


def _answers(cost: Cost) -> list[str]:
    answer = cost.answer
    if answer is None:
        return ["answers    not known without --device, target.device or target.decode_tokens_per_s"]
    each = format_duration(answer.seconds, short=True)
    lines = [
        f"answers    {format_price(answer.cost_per_million)} per million on the device",
        f"           ({each} each, at {answer.basis})",
    ]
    if answer.api_cost_per_million is not None:
        lines.append(f"           {format_price(answer.api_cost_per_million)} per million by {cost.price_source}")
        return [*lines, f"           {_break_even(answer)}"]
    if not cost.endpoint:
        lines.append("           no price of an endpoint to compare with: set prices")
    return lines


def _break_even(answer: AnswerCost) -> str:
    if answer.break_even_answers is None:
        return "the endpoint is cheaper, whatever the number of answers"
    if not answer.once:
        return "the device is cheaper from the first answer on: nothing is spent before it"
    after = format_count(answer.break_even_answers, "answer")
    return f"paid for after {after}: {format_price(answer.once)} is spent before the first"


def _assumed(economy: Economy) -> list[str]:
    """What the costs rest on; a price of 0 is for a machine that is there anyway."""
    machine = f"costs {economy.train_hour:g} per hour" if economy.train_hour else "is there anyway"
    return [
        f"assumed    the device costs {economy.device_hour:g} per hour in which it answers;",
        f"           the machine that trains {machine} (prices)",
    ]
