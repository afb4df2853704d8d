"""`potstill plan RECIPE`: what the student will weigh and need, what making it costs, and whether it may ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from potstill.costs import compare, device_cost, find_price
from potstill.plan.ask import Ask
from potstill.plan.cost import Training, Workload, training
from potstill.plan.devices import Device, find_device
from potstill.plan.fit import Wish
from potstill.plan.licences import licence_verdict, render_licences
from potstill.plan.limits import Limits
from potstill.plan.memory import memory
from potstill.plan.models import Models, load_models
from potstill.plan.needs import check_memory, odd_rows_warning, vocabulary_warning
from potstill.plan.speed import Part, Speed, speed
from potstill.recipe import Quantization, Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["plan_recipe", "render_plan"]

_MB = 1e6


def plan_recipe(recipe: Recipe, ask: Ask | None = None, train_on: str = "this") -> dict[str, Any]:
    """Bytes, memory and speed of the student in every quantization, what teacher and training take, what an answer
    costs on the device and at the teacher's endpoint, and the licences' verdict.

    Args:
        recipe: the recipe.
        ask: one device at most, in place of `target.device`, and context and KV cache in place of the recipe's.
            Where neither names a device that is known, no speed is predicted.
        train_on: device that trains, for the hours; `this` is probed quickly.

    Raises:
        RecipeError: a model, its tokenizer or its template cannot be had.
        UsageError: no device has the name.
    """
    ask, models = ask or Ask(), load_models(recipe)
    device, wish = ask.one_device(recipe.target.device), ask.wish(recipe.chat.context)
    work = Workload.of(recipe, (models.teacher or models.student).chat)
    rows, rate = [], None
    for quantization in get_args(Quantization):
        row, speed = _row(recipe, models, quantization, device, wish, work)
        rows.append(row)
        rate = speed if row["chosen"] else rate
    machine, teacher = find_device(train_on, quick=True), models.teacher
    spent = training(
        models.student.parameters or 0,
        (teacher.parameters or 0) if teacher else 0,
        recipe,
        work,
        machine,
        (teacher or models.student).padded_vocab,
    )
    chosen = next(row for row in rows if row["chosen"])
    return {
        "name": recipe.name,
        "device": device.name if device else recipe.target.device,
        "context": wish.context,
        "params_student": models.student.parameters,
        "params_teacher": teacher.parameters if teacher else None,
        "kv_bytes": chosen["kv_bytes"],
        "quantizations": rows,
        "notes": [text for text in (vocabulary_warning(recipe, models), odd_rows_warning(recipe, models)) if text],
        "cost": {
            "rows": work.rows,
            "prompt_tokens": round(work.rows * work.prompt),
            "answer_tokens": round(work.rows * work.answer),
            "answer_length": work.answer_from,
            "training": {
                "machine": machine.name,
                **spent.to_json(),
                "memory": check_memory(recipe, models, []).model_dump(),
            },
            **_money(recipe, work, spent, rate),
        },
        "licences": licence_verdict(recipe).to_json(),
    }


def _row(
    recipe: Recipe, models: Models, quantization: str, device: Device | None, wish: Wish, work: Workload
) -> tuple[dict[str, Any], Speed | None]:
    """The student in one quantization, and its speed where the device is known."""
    anatomy = models.student_anatomy.quantized(quantization)
    backend = device.backend if device else "x86"
    held = memory(anatomy, wish.context, kv_type=wish.kv_type, parallel=wish.parallel, backend=backend)
    rate = speed(anatomy, [Part(device, 1.0)], wish.context, wish.kv_type) if device else None
    missed = Limits.of(recipe.target, work.prompt).missed(held.weights, held.total, rate)
    if device and held.needed > device.usable_bytes:
        missed.insert(0, "device")
    return {
        "quantization": quantization,
        "weight_bytes": anatomy.weight_bytes,
        "bits_per_weight": round(anatomy.bits_per_weight, 3),
        "kv_bytes": held.kv,
        "memory_bytes": held.total,
        "decode_tokens_per_s": [round(end, 3) for end in rate.decode] if rate else None,
        "ttft_seconds": [round(end, 4) for end in rate.first_token(work.prompt)] if rate else None,
        "fits": not missed,
        "missed": missed,
        "chosen": quantization == recipe.export.quantization,
    }, rate


def _money(recipe: Recipe, work: Workload, spent: Training, rate: Speed | None) -> dict[str, Any]:
    """The teacher's price, and an answer of the student beside one of the endpoint.

    Seconds of an answer are those of the device's slow end; where it is not known, those that the target allows.
    """
    target, price = recipe.target, find_price(recipe.teacher)
    found: dict[str, Any] = {
        "teacher_price": round(work.rows * price.of(work.prompt, work.answer), 4) if price else None,
        "price_source": price.says if price else None,
        "assumed": target.economy.model_dump(),
        "answer": None,
    }
    if rate:
        seconds = rate.first_token(work.prompt)[1] + work.answer / rate.decode[0]
        by = "the slow end of what is predicted"
    elif target.decode_tokens_per_s:
        seconds = (target.ttft_ms or 0) / 1000 + work.answer / target.decode_tokens_per_s
        by = "the slowest that the target allows"
    else:
        return found
    both = compare(
        recipe.teacher,
        target.economy,
        rows=work.rows,
        prompt=work.prompt,
        answer=work.answer,
        seconds=seconds,
        training_hours=spent.hours[1],
    )
    found["answer"] = {
        "prompt_tokens": round(work.prompt, 1),
        "tokens": round(work.answer, 1),
        "seconds": round(seconds, 4),
        "by": by,
        "cost_per_million": round(1e6 * device_cost(seconds, target.economy), 4),
    }
    if both:
        found["answer"] |= {
            "api_cost_per_million": round(1e6 * both.by_api, 4),
            "once": round(both.once, 4),
            "break_even_answers": both.break_even,
        }
    return found


def render_plan(planned: dict[str, Any]) -> RenderableType:
    """The plan for a terminal: will it run, what does it cost, may it ship."""
    from rich.console import Group
    from rich.text import Text

    lines = [Text(line) for line in _cost_lines(planned["cost"])]
    head, notes = Text("What it costs", style="bold"), [Text(note) for note in planned["notes"]]
    return Group(_sizes(planned), *notes, "", head, *lines, "", render_licences(planned["licences"]))


def _cost_lines(spent: dict[str, Any]) -> list[str]:
    training, answer, assumed = spent["training"], spent["answer"], spent["assumed"]
    priced = ""
    if spent["teacher_price"] is not None:
        priced = f": {spent['teacher_price']:,.2f} at the endpoint ({spent['price_source']})"
    low, high = training["hours"]
    lines = [
        f"teacher    {spent['rows']:,} rows, about {spent['prompt_tokens']:,} tokens in and "
        f"{spent['answer_tokens']:,} out{priced}",
        f"           (an answer as long {spent['answer_length']})",
        f"training   {training['operations']:.2g} operations: {low:.2g} to {high:.2g} hours on {training['machine']}",
        f"           {training['memory']['needed'] / 1e9:.2g} GB of memory at the peak (stage "
        f"{training['memory']['stage']}), {training['disk_bytes'] / 1e9:.2g} GB of disk, "
        f"{training['target_bytes'] / 1e9:.2g} GB of it for targets",
    ]
    if answer is None:
        return [*lines, "answers    not known without --device, target.device or target.decode_tokens_per_s"]
    lines.append(
        f"answers    {answer['cost_per_million']:,.2f} a million on the device, {answer['seconds']:.3g} s each at "
        f"{answer['by']}"
    )
    if "api_cost_per_million" not in answer:
        lines.append("           no price of the teacher is known to compare with: set teacher.price")
    else:
        lines.append(f"           {answer['api_cost_per_million']:,.2f} a million by {spent['price_source']}")
        lines.append(f"           {_break_even(answer)}")
    lines.append(
        f"assumed    {assumed['watts']:g} W at {assumed['kwh_price']:g} a kWh, a device of {assumed['device_price']:g} "
        f"that is busy {assumed['busy']:.0%} of {assumed['years']:g} years,"
    )
    lines.append(f"           {assumed['train_hour_price']:g} an hour of training (target.economy)")
    return lines


def _break_even(answer: dict[str, Any]) -> str:
    if answer["break_even_answers"] is None:
        return "the endpoint is cheaper, however many the answers"
    if not answer["once"]:
        return "the device is cheaper from the first answer: nothing is spent before it"
    return (
        f"paid for after {answer['break_even_answers']:,.0f} answers: {answer['once']:,.2f} are spent before the first"
    )


def _rates(low: float, high: float) -> str:
    digits = 0 if low >= 20 else 1
    return f"{low:,.{digits}f} to {high:,.{digits}f}"


def _sizes(planned: dict[str, Any]) -> Table:
    """Bytes by quantization; the recipe's own is marked."""
    from rich.table import Table

    share = ""
    if planned["params_teacher"]:
        share = f", {planned['params_student'] / planned['params_teacher']:.1%} of the teacher's"
    title = f"{planned['name']}: a student of {planned['params_student'] / 1e6:,.2f} million parameters{share}"
    caption = (
        f"* the recipe's; bits of a weight. Context {planned['context']:,}, KV cache {planned['kv_bytes'] / _MB:.2f} MB"
    )
    timed = planned["quantizations"][0]["decode_tokens_per_s"] is not None
    caption += f"; on {planned['device']}" if timed else f"; no speed is known of {planned['device']!r}: give --device"
    table = Table(
        title=title, caption=caption, header_style="bold", box=None, title_justify="left", caption_justify="left"
    )
    for column in ("quantization", "weights MB", "bits", "memory MB", *["tokens/s"] * timed, "target"):
        table.add_column(column, justify="left" if column in ("quantization", "target") else "right")
    for row in planned["quantizations"]:
        low, high = row["decode_tokens_per_s"] or (0, 0)
        table.add_row(
            f"{row['quantization']}{' *' if row['chosen'] else ''}",
            f"{row['weight_bytes'] / _MB:,.2f}",
            f"{row['bits_per_weight']:.2f}",
            f"{row['memory_bytes'] / _MB:,.0f}",
            *[_rates(low, high)] * timed,
            "fits" if row["fits"] else f"misses {', '.join(row['missed'])}",
        )
    return table
