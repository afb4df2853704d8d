"""The command line: one thin function a verb. Nothing heavy is imported until a verb runs.

Exit codes: 0 done, or gates pass; 1 an error; 2 wrong usage or an invalid recipe; 3 a gate FAILED; 4 a gate is
INCONCLUSIVE.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from potstill import __version__
from potstill.core.environment import is_first_process
from potstill.core.errors import MissingExtra, PotstillError, RecipeError

if TYPE_CHECKING:
    from potstill.apps.plan.options import Ask, Wanted
    from potstill.core.recipe.recipe import AnyRecipe, Recipe
    from potstill.pipeline.run import RunResult

__all__ = ["main"]

VERDICT_CODES = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}
_EXTRA_OF = {
    "torch": "train", "transformers": "train", "accelerate": "train", "safetensors": "train", "zstandard": "train",
    "gguf": "run", "xllamacpp": "run", "httpx": "run", "matplotlib": "run", "openai": "api",
    "bitsandbytes": "int8",
}  # fmt: skip


class _Group(click.Group):
    """Tells potstill's own errors in one paragraph, with their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PotstillError as error:
            _fail(error)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(
                MissingExtra(
                    f"{error.name} is not installed, and this verb needs it. "
                    f"Install it: pip install 'potstill[{extra}]'."
                )
            )


def _fail(error: PotstillError) -> None:
    click.echo(f"potstill: {error}", err=True)
    sys.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="potstill")
def main() -> None:
    """Distil a large language model into a small one, and prove it on the file that is shipped.

    A verb that names a stage runs the recipe up to that stage; finished steps are found again, not repeated.
    Exit codes: 0 done or gates pass, 1 error, 2 wrong usage or recipe, 3 a gate failed, 4 a gate is inconclusive.
    """
    if not is_first_process():  # of several under `accelerate launch`, one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


_recipe = click.argument("recipe", type=click.Path(path_type=Path))
_runs = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of all runs."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, alone.")
_tracker = click.option(
    "--tracker",
    type=click.Choice(["tensorboard", "wandb", "trackio", "none"]),
    help="Where training curves go; overrides the recipe.",
)


def _load(path: Path, tracker: str | None = None, changes: dict[str, str] | None = None) -> AnyRecipe:
    from potstill.core.recipe.recipe import load_recipe

    recipe = load_recipe(path, changes)
    if tracker:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"tracker": tracker})})
    return recipe


def _load_generative(path: Path) -> Recipe:
    """A recipe of a language model, for a verb that knows no other."""
    from potstill.core.recipe.recipe import Recipe

    recipe = _load(path)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{path}: this verb knows language models alone; this recipe's task is {recipe.task}.")
    return recipe


def _run_until(recipe: AnyRecipe, runs: Path, stage: str, as_json: bool) -> RunResult:
    from potstill.cli.render.run import announce_run, print_step
    from potstill.pipeline import run as pipeline

    announce_run(recipe, runs / recipe.name)
    result = pipeline.run(recipe, runs, until=stage, on_step=print_step)
    if not as_json:
        return result
    click.echo(json.dumps({"verdict": result.verdict, "stages": _stages(result)}))
    return result


def _stages(result: RunResult) -> dict[str, Any]:
    return {n: {"dir": str(s.dir), "seconds": s.seconds, "cached": s.cached} for n, s in result.steps.items()}


def _variants(sweep: tuple[str, ...]) -> list[dict[str, str]]:
    """Every combination of `KEY=VALUE,VALUE` options, as changes to the recipe; a single empty one without options."""
    axes = []
    for option in sweep:
        key, equals, values = option.partition("=")
        if not equals or not key or not all(values.split(",")):
            raise click.UsageError(f"--sweep {option!r} is not KEY=VALUE,VALUE, for example train.temperature=1,2")
        axes.append([(key, value) for value in values.split(",")])
    return [dict(chosen) for chosen in itertools.product(*axes)]


def _result(recipe: AnyRecipe, runs: Path, changes: dict[str, str]) -> dict[str, Any]:
    """Run a recipe to the end; what `potstill run --json` prints of it."""
    from potstill.cli.render.run import announce_run, print_step, run_metrics
    from potstill.pipeline import run as pipeline

    announce_run(recipe, runs / recipe.name)
    variant = ",".join(f"{key}={value}" for key, value in changes.items()).replace("/", "-")
    result = pipeline.run(recipe, runs, on_step=print_step, variant=variant)
    return {
        "verdict": result.verdict or "INCONCLUSIVE",
        "stages": _stages(result),
        "metrics": run_metrics(result.folder("evaluate"), result.folder("train")),
        "package": str(result.folder("package") / "package"),
        "report": str(result.page("report.html")) if "report" in result.steps else None,
    }


@main.command()
@_recipe
@_runs
@_json
@_tracker
@click.option("--sweep", multiple=True, metavar="KEY=V1,V2", help="Run once for each value; steps in common run once.")
def run(recipe: Path, runs: Path, as_json: bool, tracker: str | None, sweep: tuple[str, ...]) -> None:
    """Run a recipe to the end: a package, a report, and a verdict."""
    from potstill.cli.render.run import print_sweep, print_verdict

    variants = _variants(sweep)
    # all are read before the first is run: a value that is not valid must not be found after hours
    recipes = [_load(recipe, tracker, changes) for changes in variants]
    rows = [{"changes": changes, **_result(r, runs, changes)} for r, changes in zip(recipes, variants, strict=True)]
    if as_json:
        click.echo(json.dumps({"variants": rows} if sweep else {k: v for k, v in rows[0].items() if k != "changes"}))
    elif sweep:
        print_sweep(rows)
    else:
        found = rows[0]
        page = Path(found["report"]) if found["report"] else None
        print_verdict(Path(found["stages"]["gate"]["dir"]), Path(found["package"]), page)
    verdicts = {row["verdict"] for row in rows}
    # the worst of several: one that failed, then one that cannot be told
    sys.exit(VERDICT_CODES[next(v for v in ("FAIL", "INCONCLUSIVE", "PASS") if v in verdicts)])


def _stage_command(stage: str, text: str) -> Callable[..., None]:
    @main.command(stage, help=text)
    @_recipe
    @_runs
    @_json
    @_tracker
    def command(recipe: Path, runs: Path, as_json: bool, tracker: str | None) -> None:
        from potstill.cli.render.run import print_stage

        result = _run_until(_load(recipe, tracker), runs, stage, as_json)
        if not as_json:
            print_stage(stage, result)
        if stage in ("gate", "package", "report"):
            sys.exit(VERDICT_CODES[result.verdict or "INCONCLUSIVE"])

    return command


for _name, _help in {
    "check": "Validate recipe, data, tokenizers, disk and memory. Nothing is trained.",
    "finetune": "Train the teacher itself on rows with right answers (teacher.finetune).",
    "generate": "Let the teacher answer the prompts.",
    "train": "Distil the student, and train its matched control.",
    "export": "Write the student as a quantized GGUF, and prove its parity.",
    "evaluate": "Measure the shipped file, and checkpoint, control and teacher beside it.",
    "gate": "Judge the measurements by the recipe's thresholds.",
    "package": "Write the package: GGUF, Modelfile, model card, manifest.",
    "report": "Write the report page.",
}.items():
    _stage_command(_name, _help)


@main.command()
@click.argument("model", metavar="MODEL|RECIPE", required=False)
@click.option("--device", "devices", multiple=True, metavar="D", help="Device name; 'this' measures this machine.")
@click.option("--context", type=int, metavar="N", help="Tokens of one conversation.  [default: 4096, or the recipe's]")
@click.option(
    "--quantization", "quantizations", multiple=True, metavar="Q",
    help="Of a MODEL, or of --search's students.  [default: Q4_K_M; --search: Q8_0, Q6_K, Q4_K_M]",
)  # fmt: skip
@click.option("--kv-type", default="f16", show_default=True, metavar="T", help="Type of the KV cache.")
@click.option("--parallel", type=int, default=1, show_default=True, metavar="P", help="Conversations at once.")
@click.option("--memory", "memory_gb", type=float, metavar="GB", help="Memory free for the model, in 10^9 bytes.")
@click.option("--host", metavar="D", help="Machine that a card is in.  [default: Desktop DDR5-5600]")
@click.option("--devices", "list_devices", is_flag=True, help="List the devices that are known, and stop.")
@click.option("--search", is_flag=True, help="List students of this teacher, or the recipe's, that the device can run.")
@click.option("--decode", type=float, metavar="T", help="--search: tokens a second at least.  [default: the recipe's]")
@click.option(
    "--ttft", type=float, metavar="MS", help="--search: longest time to the first token.  [default: the recipe's]"
)
@click.option(
    "--vocabulary", type=int, metavar="V",
    help="--search: tokens kept of the vocabulary.  [default: all, or the recipe's]",
)  # fmt: skip
@click.option("--train-on", default="this", show_default=True, metavar="D", help="Device that trains, for the hours.")
@click.option(
    "--write", metavar="ID|ROW", help="--search: put that student into the recipe; a row where a device is named."
)
@_json
def plan(model: str | None, list_devices: bool, as_json: bool, search: bool, **asked: Any) -> None:
    """Say whether a model runs on a device, how fast, and what a recipe's student needs, before anything is paid for.

    MODEL is a config.json, a model's folder, a GGUF file, a hub id, or a shape such as
    llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1. A RECIPE is a .yaml file.
    """
    from potstill.apps.plan.options import Ask, Wanted, refuse_idle

    recipe = Path(model) if model and Path(model).suffix.lower() in (".yaml", ".yml") else None
    kind = ("recipe" if recipe else "model") + (" search" if search else "")
    refuse_idle(_given(click.get_current_context()), "devices" if list_devices else kind)
    if list_devices:
        _list_devices(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL|RECIPE'.")
    wanted = Wanted(**{key: asked.pop(key) for key in Wanted.__dataclass_fields__})
    host, ask = asked.pop("host"), Ask(**asked)
    if search:
        _search(recipe, model, ask, wanted, as_json)
    elif recipe:
        from potstill.apps.plan.budget import plan_recipe
        from potstill.cli.render.run import print_plan

        planned = plan_recipe(_load_generative(recipe), ask, wanted.train_on)
        click.echo(json.dumps(planned)) if as_json else print_plan(planned)
    else:
        from potstill.apps.plan.answer import answer, to_json
        from potstill.cli.render.run import print_fits

        fits = answer(model, ask, quantizations=wanted.quantizations, host=host)
        click.echo(json.dumps(to_json(fits))) if as_json else print_fits(fits)


def _given(context: click.Context) -> list[str]:
    """Options and arguments that the command line gives, but those that say what to do and how to print it."""
    said = [p for p in context.command.params if p.name not in ("list_devices", "search", "as_json")]
    given = [p for p in said if context.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE]
    return [p.opts[0] if p.param_type_name == "option" else str(p.metavar) for p in given]


def _list_devices(as_json: bool) -> None:
    """`plan --devices`."""
    from potstill.apps.plan.answer import devices_json
    from potstill.cli.render.run import print_devices

    click.echo(json.dumps(devices_json())) if as_json else print_devices()


def _search(path: Path | None, model: str, ask: Ask, wanted: Wanted, as_json: bool) -> None:
    """`plan --search`; a recipe is written before anything is printed, so that what is refused prints nothing."""
    from potstill.apps.plan.choose import choose, write_choice
    from potstill.cli.render.run import print_choice

    found = choose(_load_generative(path) if path else None, model, ask, wanted)
    if path and found["written"]:
        write_choice(path, found["written"])
    click.echo(json.dumps(found)) if as_json else print_choice(found)
    if path and found["written"]:
        click.echo(f"{path}: student and export.quantization are those of {found['written']['id']} now.", err=True)


@main.command()
@_recipe
@_json
def licences(recipe: Path, as_json: bool) -> None:
    """Say whether the student may ship, by the licences of teacher, base student and data. Not legal advice."""
    from potstill.cli.render.run import print_licences
    from potstill.components.licences.licences import licence_verdict

    verdict = licence_verdict(_load_generative(recipe)).to_json()
    click.echo(json.dumps(verdict)) if as_json else print_licences(verdict)


@main.command("calibrate-device")
@click.argument("files", metavar="[GGUF]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="llama.cpp's threads.")
@_json
def calibrate_device(files: tuple[Path, ...], threads: int, as_json: bool) -> None:
    """Run GGUFs in llama.cpp, random ones if none are given, and keep this machine's rates for plans of 'this'."""
    from potstill.components.hardware.calibrate import calibrate

    stored = calibrate(files, threads, lambda text: click.echo(text, err=True))
    click.echo(json.dumps(stored) if as_json else f"Rates for {threads} threads are in {stored['file']}.")


@main.group()
def targets() -> None:
    """Look into a store of teacher targets."""


@targets.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_json
def stats(folder: Path, as_json: bool) -> None:
    """Say how large and how faithful a store is.

    Bytes and ids a token, tail mass, and the divergence between the teacher and what is stored of it.
    """
    from potstill.components.targets import render_stats, store_stats

    found = store_stats(folder)
    click.echo(json.dumps(found) if as_json else render_stats(found))
