"""`potstill plan RECIPE`: what the student will weigh and need, what making it costs, and whether it may ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from potstill.apps.plan.answer import aligned
from potstill.apps.plan.options import Ask, refuse_context
from potstill.components.conversion.rules import require_exportable
from potstill.components.hardware.devices import Device, find_device
from potstill.components.hardware.fit import Serving, device_memory
from potstill.components.hardware.memory import memory, refuse_odd_heads
from potstill.components.hardware.speed import Part, Speed, speed
from potstill.components.licences.licences import licence_verdict, render_licences
from potstill.components.models.recipe_models import Models, load_models
from potstill.components.sizing.cost import Training, Workload, disk_needed, training
from potstill.components.sizing.limits import Limits
from potstill.components.sizing.needs import check_memory, odd_rows_warning, vocabulary_warning
from potstill.components.sizing.prices import compare, device_cost, find_price
from potstill.core.format import format_count, format_duration, format_large, format_price, format_size, format_speed
from potstill.core.recipe import Quantization, Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["plan_recipe", "render_plan"]


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
        UsageError: no device has the name, or the student has no place for such a context or KV cache.
    """
    ask, models = ask or Ask(), load_models(recipe)
    require_exportable(recipe, models.student)
    device, serving = ask.one_device(recipe.target.device), ask.serving(recipe.chat.context)
    _require_possible(models, serving)
    work = Workload.of(recipe, (models.teacher or models.student).chat)
    notes = [text for text in (vocabulary_warning(recipe, models), odd_rows_warning(recipe, models)) if text]
    rows, rate = [], None
    for quantization in get_args(Quantization):
        row, speed = _row(recipe, models, quantization, device, serving, work)
        rows.append(row)
        rate = speed if row["chosen"] else rate
    machine, teacher = find_device(train_on, quick=True, option="--train-on"), models.teacher
    spent = training(
        models.student.parameters or 0,
        (teacher.parameters or 0) if teacher else 0,
        recipe,
        work,
        machine,
        (teacher or models.student).padded_vocab,
        disk_needed(recipe, models, work, notes),
    )
    chosen = next(row for row in rows if row["chosen"])
    return {
        "name": recipe.name,
        "device": device.name if device else recipe.target.device,
        "context": serving.context,
        "params_student": models.student.parameters,
        "params_teacher": teacher.parameters if teacher else None,
        "kv_bytes": chosen["kv_bytes"],
        "quantizations": rows,
        "notes": notes,
        "cost": {
            "rows": work.answered_rows,
            "prompt_tokens": round(work.answered_rows * work.prompt),
            "answer_tokens": round(work.answered_rows * work.answer),
            "answer_length": work.answer_from,
            "endpoint": recipe.teacher.base_url,
            "training": {
                "machine": machine.name,
                **spent.to_json(),
                "memory": check_memory(recipe, models, []).model_dump(),
            },
            **_money(recipe, work, spent, rate),
        },
        "licences": licence_verdict(recipe).to_json(),
    }


def _require_possible(models: Models, serving: Serving) -> None:
    """Raise UsageError for a context that the student was not made for, or a KV cache that its heads do not fill."""
    student = models.student_spec
    # a recipe with a longer chat.context is not valid, so it is the option's
    refuse_context(serving.context, student.context, student.name)
    refuse_odd_heads(student, serving.kv_type)


def _row(
    recipe: Recipe, models: Models, quantization: str, device: Device | None, serving: Serving, work: Workload
) -> tuple[dict[str, Any], Speed | None]:
    """The student in one quantization, and its speed where the device is known."""
    spec = models.student_spec.quantized(quantization)
    if device:
        held = device_memory(spec, device, serving)
    else:
        held = memory(spec, serving.context, kv_type=serving.kv_type, parallel=serving.parallel)
    rate = speed(spec, [Part(device, 1.0)], serving.context, serving.kv_type) if device else None
    missed = Limits.of(recipe.target, work.prompt).missed(held.weights, held.total, rate)
    if device and held.needed > device.usable_bytes:
        missed.insert(0, "device")
    return {
        "quantization": quantization,
        "weight_bytes": spec.weight_bytes,
        "bits_per_weight": round(spec.bits_per_weight, 3),
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
        "teacher_price": round(work.answered_rows * price.of(work.prompt, work.answer), 4) if price else None,
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
        rows=work.answered_rows,
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

    sizes = [Text(line, style="bold" if place < 2 else "") for place, line in enumerate(_sizes(planned))]
    head = Text("What it costs, in the currency of the prices", style="bold")
    lines, notes = map(Text, _cost_lines(planned["cost"])), map(Text, planned["notes"])
    return Group(*sizes, *notes, "", head, *lines, "", render_licences(planned["licences"]))


def _cost_lines(spent: dict[str, Any]) -> list[str]:
    return [
        *_teacher_lines(spent),
        *_training_lines(spent["training"]),
        *_answer_lines(spent),
        *_assumed(spent["assumed"]),
    ]


def _teacher_lines(spent: dict[str, Any]) -> list[str]:
    tokens = f"{format_count(spent['prompt_tokens'], 'token')} in and {spent['answer_tokens']:,} out"
    lines = [
        f"teacher    {format_count(spent['rows'], 'row')}, about {tokens}",
        f"           (an answer as long {spent['answer_length']})",
    ]
    if spent["teacher_price"] is not None:
        lines.append(f"           {format_price(spent['teacher_price'])} at the endpoint ({spent['price_source']})")
    elif spent["endpoint"]:
        lines.append(f"           no price is listed of this model at {spent['endpoint']}:")
        lines.append("           set teacher.price, as {input: 2.0, output: 8.0} for 10^6 tokens of each")
    return lines


def _training_lines(training: dict[str, Any]) -> list[str]:
    low, high = (3600 * hours for hours in training["hours"])
    span = format_duration(low, high) if high >= 60 else "less than a minute"
    memory, disk, targets = (
        format_size(n) for n in (training["memory"]["needed"], training["disk_bytes"], training["target_bytes"])
    )
    lines = [
        f"training   {training['operations']:.2g} operations: {span} on {training['machine']}",
        f"           {memory} of memory at the peak (stage {training['memory']['stage']})",
        f"           {disk} of disk" + (f", {targets} of it for targets" if training["target_bytes"] else ""),
    ]
    return [*lines, "           (answers that are generated come on top)"] if training["left_out"] else lines


def _answer_lines(spent: dict[str, Any]) -> list[str]:
    answer = spent["answer"]
    if answer is None:
        return ["answers    not known without --device, target.device or target.decode_tokens_per_s"]
    each = format_duration(answer["seconds"], answer["seconds"], short=True)
    lines = [
        f"answers    {format_price(answer['cost_per_million'])} a million on the device",
        f"           ({each} each, at {answer['by']})",
    ]
    if "api_cost_per_million" in answer:
        lines.append(f"           {format_price(answer['api_cost_per_million'])} a million by {spent['price_source']}")
        return [*lines, f"           {_break_even(answer)}"]
    if not spent["endpoint"]:
        lines.append("           no endpoint's price to compare with: set teacher.price")
    return lines


def _assumed(assumed: dict[str, Any]) -> list[str]:
    """What the costs rest on (target.economy); a price of 0 is that of a thing which is there anyway."""
    price, hour = assumed["device_price"], assumed["train_hour_price"]
    years = f"{assumed['years']:g} year{'' if assumed['years'] == 1 else 's'}"
    device = f"costs {price:g} and answers {assumed['busy']:.0%} of {years}" if price else "is there anyway"
    return [
        f"assumed    {assumed['watts']:g} W at {assumed['kwh_price']:g} a kWh; the device {device};",
        f"           what trains {f'costs {hour:g} an hour' if hour else 'is there anyway'} (target.economy)",
    ]


def _break_even(answer: dict[str, Any]) -> str:
    if answer["break_even_answers"] is None:
        return "the endpoint is cheaper, however many the answers"
    if not answer["once"]:
        return "the device is cheaper from the first answer: nothing is spent before it"
    after = format_count(answer["break_even_answers"], "answer")
    return f"paid for after {after}: {format_price(answer['once'])} is spent before the first"


def _sizes(planned: dict[str, Any]) -> list[str]:
    """Title, head and bytes by quantization, the recipe's own marked; then what they hold for."""
    share = ""
    if planned["params_teacher"]:
        share = f", {planned['params_student'] / planned['params_teacher']:.1%} of the teacher's"
    timed = planned["quantizations"][0]["decode_tokens_per_s"] is not None
    cells = [["", "type", "weights", "bits", "memory", *["tokens/s"] * timed]]
    for row in planned["quantizations"]:
        sizes = format_size(row["weight_bytes"]), f"{row['bits_per_weight']:.2f}", format_size(row["memory_bytes"])
        low, high = row["decode_tokens_per_s"] or (0.0, 0.0)
        rate = [format_speed(low, high, "-")] if timed else []
        cells.append(["*" * row["chosen"], row["quantization"], *sizes, *rate])
    head, *lines = aligned(cells, left=(0, 1))
    judged = ("fits" if not row["missed"] else f"misses {', '.join(row['missed'])}" for row in planned["quantizations"])
    device = planned["device"]
    known = f"on {device}" if timed else f"no speed is known of {device!r}: give --device"
    return [
        f"{planned['name']}: a student of {format_large(planned['params_student'])} parameters{share}",
        f"{head}  target",
        *(f"{line}  {words}" for line, words in zip(lines, judged, strict=True)),
        f"* the recipe's; bits of a weight; {format_count(planned['context'], 'token')} of context, "
        f"{format_size(planned['kv_bytes'])} of KV cache",
        known,
    ]
