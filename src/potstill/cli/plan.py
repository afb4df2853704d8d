"""Commands that predict: what a model or a recipe needs, how fast it runs, and whether it may be shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.cli.options import json_option, load, load_language, recipe_argument, runs_option

if TYPE_CHECKING:
    from potstill.apps.plan.search import SearchResult

__all__ = ["calibrate_device", "devices", "fit", "licences", "plan", "search"]


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _serving(command: Callable[..., None]) -> Callable[..., None]:
    """Options on how a model is served, besides its context."""
    for option in (
        click.option(
            "--memory", "memory_gb", type=float, metavar="GB", help="Memory free for the model, in 10^9 bytes."
        ),
        click.option("--parallel", type=int, default=1, show_default=True, metavar="P", help="Conversations at once."),
        click.option("--kv-type", default="f16", show_default=True, metavar="T", help="Type of the KV cache."),
    ):
        command = option(command)
    return command


_device = click.option(
    "--device", "devices", multiple=True, metavar="D", help="Device name; 'this' measures this machine."
)


def _context(default: str) -> Decorator:
    return click.option("--context", type=int, metavar="N", help=f"Tokens of one conversation. Default: {default}.")


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List the devices whose memory and speed are known."""
    from dataclasses import asdict

    from potstill.cli.render.devices import render_devices
    from potstill.cli.render.page import print_json, print_page
    from potstill.components.hardware.devices import load_devices

    known = load_devices()
    if as_json:
        print_json({"devices": [{**asdict(device), "usable_bytes": device.usable_bytes} for device in known]})
    else:
        print_page(render_devices(known))


@click.command()
@click.argument("model", metavar="MODEL")
@_device
@_context("4096, or the model's own maximum")
@click.option(
    "--quantization", "quantizations", multiple=True, metavar="Q",
    help="Quantization of the weights. Default: Q4_K_M, and MXFP4_MOE for gpt-oss; a GGUF file has its own.",
)  # fmt: skip
@_serving
@click.option("--host", metavar="D", help="Host machine of a GPU device (CPU and RAM). Default: Desktop DDR5-5600.")
@json_option
def fit(model: str, as_json: bool, **options: Any) -> None:
    """Predict whether a model runs on a device, how fast, and with which context.

    MODEL is a config.json, a model's folder, a GGUF file, a hub id, or a shape such as
    llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1.
    """
    from potstill.apps.plan.fit import FitOptions, fit_model
    from potstill.cli.render.fit import render_fits
    from potstill.cli.render.page import print_json, print_page

    found = fit_model(model, FitOptions(**options))
    if as_json:
        print_json(found[0] if len(found) == 1 else {"plans": found})
    else:
        print_page(render_fits(found))


@click.command()
@click.argument("model", metavar="MODEL|RECIPE")
@_device
@_context("the recipe's, or 4096")
@click.option(
    "--quantization", "quantizations", multiple=True, metavar="Q",
    help="Quantization of the students. Default: Q8_0, Q6_K and Q4_K_M.",
)  # fmt: skip
@click.option("--decode", type=float, metavar="T", help="Slowest decoding, in tokens/s. Default: the recipe's.")
@click.option("--ttft", type=float, metavar="MS", help="Longest time to the first token. Default: the recipe's.")
@click.option("--vocabulary", type=int, metavar="V", help="Tokens to keep. Default: all, or as the recipe says.")
@_serving
@click.option("--train-on", metavar="D", help="RECIPE: device that trains, for the hours. Default: this machine.")
@click.option(
    "--write", metavar="ID|ROW", help="RECIPE: put this student into the recipe; a row where a device is named."
)
@click.option(
    "--measure", type=click.IntRange(min=1), metavar="N", help="RECIPE: train N of the students for a short time."
)
@click.option(
    "--share",
    type=float,
    default=0.1,
    show_default=True,
    metavar="S",
    help="Share of the recipe's training that they have.",
)
@runs_option
@json_option
def search(model: str, as_json: bool, measure: int | None, share: float, runs: Path, **options: Any) -> None:
    """List students that a device can run.

    They are cut from the teacher, or known small models. MODEL is the teacher: a config.json, a model's folder, a hub
    id, or a shape. A RECIPE is a .yaml file; its teacher, target and rows count.

    With --measure, students are ranked by their loss on validation rows after a short training. The teacher's answers
    are made first, and kept for the run.
    """
    from potstill.apps.plan.search import SearchOptions, search_students
    from potstill.apps.plan.write import write_student
    from potstill.cli.render.page import print_json, print_page, say
    from potstill.cli.render.search import render_search

    path = Path(model) if _is_recipe(model) else None
    recipe = load_language(path) if path else None
    if measure:
        from potstill.apps.plan.measured import require_measurable

        require_measurable(recipe, share)
    elif click.get_current_context().get_parameter_source("share") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--share is for --measure.")
    found = search_students(recipe, model, SearchOptions(**options))
    if path and measure:
        found = _measured(path, found, measure, share, runs)
    written = found.written
    if path and written:  # before anything is printed, so that a refused write prints nothing
        write_student(path, written.student, written.quantization)
    print_json(found) if as_json else print_page(render_search(found))
    if path and written:
        say(f"{path}: student and export.quantization are those of {written.id} now.", err=True)


def _measured(path: Path, found: SearchResult, number: int, share: float, runs: Path) -> SearchResult:
    """The result with students that were trained for a short time."""
    from dataclasses import replace

    from potstill.apps.plan.measured import chosen_students, measured_student, short_recipe
    from potstill.cli.run import run_pipeline

    measured = []
    for row in chosen_students(found, number):
        result = run_pipeline(short_recipe(path, row, share), runs, until="train", variant=row.id.replace("/", "-"))
        measured.append(measured_student(row, result.folder("train")))
    return replace(found, measured=tuple(sorted(measured, key=lambda one: one.loss)))


def _is_recipe(name: str) -> bool:
    return Path(name).suffix.lower() in (".yaml", ".yml")


def _moved(option: str, now: str) -> Decorator:
    """A hidden option of earlier versions, which says what to type now."""

    def callback(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            raise click.UsageError(f"'potstill plan {option}' is now: {now}", context)

    name = f"moved_{option.strip('-')}"
    return click.option(option, name, is_flag=True, hidden=True, is_eager=True, expose_value=False, callback=callback)


@click.command()
@recipe_argument
@_device
@_context("the recipe's")
@_serving
@click.option("--train-on", default="this", show_default=True, metavar="D", help="Device that trains, for the hours.")
@_moved("--devices", "potstill devices")
@_moved("--search", "potstill search MODEL|RECIPE")
@json_option
def plan(recipe: Path, as_json: bool, **options: Any) -> None:
    """Predict what a recipe's student needs and costs, and judge its licences.

    For a classifier's recipe, only --train-on has an effect.
    """
    from potstill.apps.plan.classifier import plan_classifier
    from potstill.apps.plan.recipe import PlanOptions, plan_recipe
    from potstill.cli.render.page import print_json, print_page
    from potstill.cli.render.plan import render_classifier_plan, render_plan
    from potstill.core.recipe import ClassifierRecipe

    if not _is_recipe(str(recipe)):
        raise click.UsageError(f"'potstill plan MODEL' is now: potstill fit {recipe}")
    chosen = PlanOptions(**options)  # wrong numbers are refused for a classifier too
    loaded = load(recipe)
    if isinstance(loaded, ClassifierRecipe):
        plan_of_classifier = plan_classifier(loaded, chosen.train_on)
        print_json(plan_of_classifier) if as_json else print_page(render_classifier_plan(plan_of_classifier))
    else:
        found = plan_recipe(loaded, chosen)
        print_json(found) if as_json else print_page(render_plan(found))


@click.command()
@recipe_argument
@json_option
def licences(recipe: Path, as_json: bool) -> None:
    """Say whether the licences allow the student to be shipped.

    The licences of teacher, base student, tokenizer and data count. This is not legal advice.
    """
    from potstill.cli.render.licences import render_licences
    from potstill.cli.render.page import print_json, print_page
    from potstill.components.licences.licences import licence_verdict

    verdict = licence_verdict(load(recipe))
    print_json(verdict) if as_json else print_page(render_licences(verdict))


@click.command(name="calibrate-device")
@click.argument("files", metavar="[GGUF]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of llama.cpp.")
@json_option
def calibrate_device(files: tuple[Path, ...], threads: int, as_json: bool) -> None:
    """Measure this machine's rates in llama.cpp, for the device 'this'.

    Random models are measured, and the given GGUF files. Later predictions use the rates.
    """
    from potstill.cli.render.page import print_json, say
    from potstill.components.hardware.calibrate import calibrate

    found = calibrate(files, threads, lambda text: say(text, err=True))
    path = found.store()
    if as_json:
        print_json({**found.model_dump(), "file": path})
    else:
        say(f"Rates for {threads} threads are in {path}.")
