"""`potstill plan RECIPE`: what the student will weigh and need, what making it costs, and whether it may ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from potstill.plan import cost
from potstill.plan.arithmetic import gguf_run_memory_bytes, gguf_weight_bytes, kv_cache_bytes
from potstill.plan.devices import Device, find_device
from potstill.plan.licences import licence_verdict
from potstill.plan.models import Models, load_models
from potstill.recipe import Quantization, Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["plan_recipe", "render_plan"]

_MB = 1e6


def plan_recipe(recipe: Recipe, train_on: str = "this") -> dict[str, Any]:
    """Exact weight bytes of the student in every quantization, an estimate of its memory at `chat.context`, what
    teacher and training cost, and the licences' verdict.

    Args:
        recipe: the recipe.
        train_on: device that trains, for the hours; `this` is probed quickly.

    Raises:
        RecipeError: a model, its tokenizer or its template cannot be had.
        UsageError: no device has the name.
    """
    models = load_models(recipe)
    shape, target = models.student_shape, recipe.target
    context = recipe.chat.context
    rows = []
    for quantization in get_args(Quantization):
        weights = gguf_weight_bytes(shape, quantization)
        memory = gguf_run_memory_bytes(shape, weights, context)
        fits = (target.file_mb is None or weights / _MB <= target.file_mb) and (
            target.memory_mb is None or memory / _MB <= target.memory_mb
        )
        rows.append(
            {
                "quantization": quantization,
                "weight_bytes": weights,
                "bits_per_weight": round(8 * weights / models.student.parameters, 3)
                if models.student.parameters
                else None,
                "memory_bytes": memory,
                "fits": fits,
                "chosen": quantization == recipe.export.quantization,
            }
        )
    return {
        "name": recipe.name,
        "device": target.device,
        "context": context,
        "params_student": models.student.parameters,
        "params_teacher": models.teacher.parameters if models.teacher else None,
        "kv_bytes": kv_cache_bytes(shape, context),
        "quantizations": rows,
        "cost": _cost(recipe, models, find_device(train_on, quick=True)),
        "licences": licence_verdict(recipe).to_json(),
    }


def _cost(recipe: Recipe, models: Models, machine: Device) -> dict[str, Any]:
    """Tokens and price of the teacher, training, and an answer of the student against one of the endpoint.

    Seconds of an answer are known where target.decode_tokens_per_s says how slow the student may be.
    """
    work, price = cost.Workload.of(recipe), recipe.teacher.price
    teacher, student = models.teacher, models.student.parameters or 0
    train = recipe.train
    spent = cost.training(
        student,
        (teacher.parameters or 0) if teacher else 0,
        work,
        machine,
        control=train.control == "sft",
        stored=train.targets.kind != "online",
        vocab=teacher.padded_vocab if teacher else models.student.padded_vocab,
    )
    found: dict[str, Any] = {
        "rows": work.rows,
        "prompt_tokens": round(work.rows * work.prompt),
        "answer_tokens": round(work.rows * work.answer),
        "teacher_price": None,
        "training": {"machine": machine.name, **cost.to_json(spent)},
        "answer": None,
    }
    if price:
        found["teacher_price"] = round(cost.teacher_cost(work, price.input, price.output), 4)
    rate = recipe.target.decode_tokens_per_s
    if rate:
        seconds = work.answer / rate
        own = cost.device_cost(seconds, recipe.target.economy)
        found["answer"] = {"tokens": work.answer, "seconds": round(seconds, 4), "cost_per_million": round(1e6 * own, 4)}
        if price:
            api = (work.prompt * price.input + work.answer * price.output) / 1e6
            spent_once = found["teacher_price"] if recipe.teacher.kind == "api" else 0.0
            found["answer"] |= {
                "api_cost_per_million": round(1e6 * api, 4),
                "break_even_answers": cost.break_even(spent_once + recipe.target.economy.device_price, own, api),
            }
    return found


def render_plan(planned: dict[str, Any]) -> RenderableType:
    """The plan for a terminal: sizes, cost, licences."""
    from rich.console import Group
    from rich.text import Text

    spent, licences = planned["cost"], planned["licences"]
    training, answer = spent["training"], spent["answer"]
    lines = [
        f"teacher    about {spent['prompt_tokens']:,} tokens in and {spent['answer_tokens']:,} out, "
        f"{spent['rows']:,} rows"
        + (f": {spent['teacher_price']:,.2f} by teacher.price" if spent["teacher_price"] is not None else ""),
        f"training   {training['hours'][0]:.2g} to {training['hours'][1]:.2g} hours on {training['machine']}, "
        f"{training['disk_bytes'] / 1e9:.2g} GB of disk",
    ]
    if answer:
        lines.append(
            f"answers    {answer['cost_per_million']:,.2f} a million on the device, at the slowest decoding allowed"
            + (f"; {answer['api_cost_per_million']:,.2f} by teacher.price" if "api_cost_per_million" in answer else "")
        )
    if answer and answer.get("break_even_answers") is not None:
        lines.append(f"           paid for after {answer['break_even_answers']:,.0f} answers")
    style = {"allowed": "green", "allowed with obligations": "yellow"}.get(licences["answer"], "red")
    verdict = Text("licences   ").append(licences["answer"], style=f"bold {style}")
    business = [] if licences["commercial"] else ["not for business"]
    reasons = [f"           - {one}" for one in (*licences["reasons"], *licences["obligations"], *business)]
    return Group(_sizes(planned), "", *map(Text, lines), verdict, *map(Text, reasons))


def _sizes(planned: dict[str, Any]) -> Table:
    """Bytes by quantization; the recipe's own is marked."""
    from rich.table import Table

    teacher = f", teacher {planned['params_teacher'] / 1e6:.2f} M" if planned["params_teacher"] else ""
    title = f"{planned['name']}: student {planned['params_student'] / 1e6:.2f} M parameters{teacher}"
    caption = f"context {planned['context']}, KV cache {planned['kv_bytes'] / _MB:.2f} MB; for {planned['device']}"
    table = Table(
        title=title, caption=caption, header_style="bold", box=None, title_justify="left", caption_justify="left"
    )
    for column in ("quantization", "weights MB", "bits a weight", "memory MB", "budget"):
        table.add_column(column, justify="left" if column in ("quantization", "budget") else "right")
    for row in planned["quantizations"]:
        table.add_row(
            f"{row['quantization']}{' *' if row['chosen'] else ''}",
            f"{row['weight_bytes'] / _MB:.2f}",
            f"{row['bits_per_weight']:.2f}",
            f"{row['memory_bytes'] / _MB:.0f}",
            "fits" if row["fits"] else "does not fit",
        )
    return table
