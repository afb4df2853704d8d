"""`potstill plan RECIPE`: what the student will need, what making it costs, and whether it may be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from potstill.apps.plan.options import ServingOptions, require_context
from potstill.components.conversion.rules import require_exportable
from potstill.components.hardware.devices import Device, find_device
from potstill.components.hardware.fit import Serving, device_memory
from potstill.components.hardware.memory import Memory, memory, require_kv_type
from potstill.components.hardware.speed import Placement, Speed, speed
from potstill.components.licences.licences import LicenceVerdict, licence_verdict
from potstill.components.models.recipe_models import Model, Models, load_models
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing.cost import Size, Training, training
from potstill.components.sizing.disk import disk_need, pending_download
from potstill.components.sizing.file_size import rows_warning, vocabulary_warning
from potstill.components.sizing.limits import Limits
from potstill.components.sizing.prices import compare, device_cost, find_price
from potstill.components.sizing.room import disk_problem, download_problem, memory_problem
from potstill.components.sizing.stored import stored_answers
from potstill.components.sizing.training_memory import memory_need
from potstill.components.sizing.workload import Workload
from potstill.core.recipe import Economy, Quantization, Recipe

__all__ = ["AnswerCost", "Cost", "PlanOptions", "QuantizationPlan", "RecipePlan", "plan_recipe"]


@dataclass(frozen=True)
class PlanOptions(ServingOptions):
    """Options of `potstill plan`: one device at most, instead of `target.device`.

    train_on   device that trains, for the hours; `this` is probed quickly
    """

    train_on: str = "this"


@dataclass(frozen=True)
class QuantizationPlan:
    """The student in one quantization; speeds are ranges (low, high), or None where the device is not known.

    missed   keys of the recipe's target that are missed; `device` where the device's memory is too small
    chosen   whether the recipe asks for this quantization
    """

    quantization: str
    weight_bytes: int
    bits_per_weight: float
    kv_bytes: int
    memory_bytes: int
    decode_tokens_per_s: tuple[float, float] | None
    ttft_seconds: tuple[float, float] | None
    fits: bool
    missed: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True)
class AnswerCost:
    """One answer of the student, and one of the endpoint where its price is known.

    seconds               time that the device takes, by `basis`
    once                  spent before the first answer
    break_even_answers    number of answers after which the student has paid for itself; None where the endpoint's
                          answers are cheaper
    """

    prompt_tokens: float
    tokens: float
    seconds: float
    basis: str
    cost_per_million: float
    api_cost_per_million: float | None = None
    once: float | None = None
    break_even_answers: float | None = None


@dataclass(frozen=True)
class Cost:
    """What making and running the student costs, in the currency of the prices.

    rows            rows that the teacher has still to answer
    stored          rows beyond these whose answers the store of earlier runs has
    own             rows beyond these that have their own answers
    answer_length   where the length of an answer was taken from, in words
    assumed         prices of an hour of the device and of training
    answer          None where neither the device nor target.decode_tokens_per_s says how long an answer takes
    """

    rows: int
    stored: int
    own: int
    prompt_tokens: int
    answer_tokens: int
    answer_length: str
    endpoint: str | None
    training: Training
    teacher_price: float | None
    price_source: str | None
    assumed: Economy
    answer: AnswerCost | None


@dataclass(frozen=True)
class RecipePlan:
    """The whole plan. `device` is the text of `target.device` where it names no known device."""

    name: str
    device: str
    context: int
    params_student: int
    params_teacher: int | None
    kv_bytes: int
    quantizations: tuple[QuantizationPlan, ...]
    notes: tuple[str, ...]
    cost: Cost
    licences: LicenceVerdict


def plan_recipe(recipe: Recipe, options: PlanOptions | None = None, runs: Path = Path("runs")) -> RecipePlan:
    """The plan of a recipe. Where no known device is named, no speed is predicted.

    Args:
        recipe: the recipe.
        options: see `PlanOptions`.
        runs: folder that would hold the run, for the free disk; it need not exist.

    Raises:
        RecipeError: a model, its tokenizer or its template is missing, or the student cannot be exported.
        UsageError: no device has the name, or the student cannot have such a context or KV cache.
    """
    options, models = options or PlanOptions(), load_models(recipe)
    require_exportable(recipe, models.student)
    device, serving = options.one_device(recipe.target.device), options.serving(recipe.chat.context)
    # a recipe whose chat.context is too long is not valid, so this is about the option
    require_context(serving.context, models.student_spec.context, models.student_spec.name)
    require_kv_type(models.student_spec, serving.kv_type)
    work = Workload.of(recipe, (models.teacher or models.student).chat)
    found = {name: _predict(models, name, device, serving) for name in get_args(Quantization)}
    rows = tuple(_quantization_plan(recipe, found[name], device, work) for name in found)
    teacher, disk, memory_peak = models.teacher, disk_need(recipe, models, work.splits), memory_need(recipe, models)
    machine = find_device(options.train_on, quick=True, option="--train-on")
    spent = training(
        _size(models.student),
        _size(teacher) if teacher else None,
        recipe,
        work,
        machine,
        (teacher or models.student).padded_vocab,
        disk,
        memory_peak,
    )
    notes = [vocabulary_warning(recipe, models), rows_warning(recipe, models)]
    notes += [disk_problem(disk, runs), download_problem(pending_download(models))]
    notes.append(memory_problem(memory_peak, None if machine.date == "now" else machine))
    return RecipePlan(
        name=recipe.name,
        device=device.name if device else recipe.target.device,
        context=serving.context,
        params_student=models.student_spec.parameters,
        params_teacher=teacher.parameters if teacher else None,
        kv_bytes=rows[0].kv_bytes,
        quantizations=rows,
        notes=tuple(note for note in notes if note),
        cost=_cost(recipe, work, spent, found[recipe.export.quantization].speed, runs),
        licences=licence_verdict(recipe),
    )


def _size(model: Model) -> Size:
    return Size(model.parameters or 0, model.spec.layers if model.spec else 0)


@dataclass(frozen=True)
class _Prediction:
    """The student in one quantization, as it will be served; its speed where the device is known."""

    spec: ModelSpec
    memory: Memory
    speed: Speed | None


def _predict(models: Models, quantization: str, device: Device | None, serving: Serving) -> _Prediction:
    spec = models.student_spec.quantized(quantization)
    if device:
        held = device_memory(spec, device, serving)
    else:
        held = memory(spec, serving.context, kv_type=serving.kv_type, parallel=serving.parallel)
    rate = speed(spec, [Placement(device, 1.0)], serving.context, serving.kv_type) if device else None
    return _Prediction(spec, held, rate)


def _quantization_plan(recipe: Recipe, found: _Prediction, device: Device | None, work: Workload) -> QuantizationPlan:
    spec, held, rate = found.spec, found.memory, found.speed
    missed = Limits.of(recipe.target, work.prompt).missed(held.weights, held.total, rate)
    if device and held.needed > device.usable_bytes:
        missed.insert(0, "device")
    first = rate.first_token(work.prompt) if rate else None
    return QuantizationPlan(
        quantization=spec.quantization or "",
        weight_bytes=spec.weight_bytes,
        bits_per_weight=round(spec.bits_per_weight, 3),
        kv_bytes=held.kv,
        memory_bytes=held.total,
        decode_tokens_per_s=(round(rate.decode[0], 3), round(rate.decode[1], 3)) if rate else None,
        ttft_seconds=(round(first[0], 4), round(first[1], 4)) if first else None,
        fits=not missed,
        missed=tuple(missed),
        chosen=spec.quantization == recipe.export.quantization,
    )


def _cost(recipe: Recipe, work: Workload, spent: Training, rate: Speed | None, runs: Path) -> Cost:
    price, stored = find_price(recipe), stored_answers(recipe, work.splits, runs)
    rows = work.answered_rows - stored
    return Cost(
        rows=rows,
        stored=stored,
        own=work.rows + work.validation_rows if work.own_answers else 0,
        prompt_tokens=round(rows * work.prompt),
        answer_tokens=round(rows * work.answer),
        answer_length=work.answer_length,
        endpoint=recipe.teacher.base_url,
        training=spent,
        teacher_price=round(rows * price.of(work.prompt, work.answer), 4) if price else None,
        price_source=price.label if price else None,
        assumed=recipe.economy,
        answer=_answer_cost(recipe, work, rows, spent.all_hours[1], rate),
    )


def _answer_cost(
    recipe: Recipe, work: Workload, rows: int, training_hours: float, rate: Speed | None
) -> AnswerCost | None:
    """An answer takes as long as the slow end of what is predicted, or else as long as the recipe's target allows."""
    target = recipe.target
    if rate:
        seconds = rate.first_token(work.prompt)[1] + work.answer / rate.decode[0]
        basis = "the slow end of what is predicted"
    elif target.decode_tokens_per_s:
        seconds = (target.ttft_ms or 0) / 1000 + work.answer / target.decode_tokens_per_s
        basis = "the slowest that the target allows"
    else:
        return None
    both = compare(
        find_price(recipe),
        recipe.economy,
        teacher_kind="local" if recipe.teacher.kind == "local" else "api",
        rows=rows,
        prompt=work.prompt,
        answer=work.answer,
        seconds=seconds,
        training_hours=training_hours,
    )
    return AnswerCost(
        prompt_tokens=round(work.prompt, 1),
        tokens=round(work.answer, 1),
        seconds=round(seconds, 4),
        basis=basis,
        cost_per_million=round(1e6 * device_cost(seconds, recipe.economy), 4),
        api_cost_per_million=round(1e6 * both.by_api, 4) if both else None,
        once=round(both.once, 4) if both else None,
        break_even_answers=both.break_even if both else None,
    )
