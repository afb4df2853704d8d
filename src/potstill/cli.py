"""The command line: one thin function a verb. Nothing heavy is imported until a verb runs.

Exit codes: 0 done, or gates pass; 1 an error; 2 wrong usage or an invalid recipe; 3 a gate FAILED; 4 a gate is
INCONCLUSIVE.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill import __version__
from potstill.errors import MissingExtra, PotstillError

if TYPE_CHECKING:
    from potstill.pipeline import RunResult
    from potstill.recipe import Recipe

__all__ = ["main"]

VERDICT_CODES = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}
_EXTRA_OF = {
    "torch": "train", "transformers": "train", "accelerate": "train", "safetensors": "train",
    "gguf": "run", "xllamacpp": "run", "httpx": "run", "matplotlib": "run", "openai": "api",
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


def _load(path: Path, tracker: str | None = None) -> Recipe:
    from potstill.recipe import load_recipe

    recipe = load_recipe(path)
    if tracker:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"tracker": tracker})})
    return recipe


def _run_until(recipe: Recipe, runs: Path, stage: str, as_json: bool) -> RunResult:
    from potstill import pipeline
    from potstill.show import announce_run, print_step

    announce_run(recipe, runs / recipe.name)
    result = pipeline.run(recipe, runs, until=stage, on_step=print_step)
    if not as_json:
        return result
    click.echo(json.dumps({"verdict": result.verdict, "stages": _stages(result)}))
    return result


def _stages(result: RunResult) -> dict[str, Any]:
    return {n: {"dir": str(s.dir), "seconds": s.seconds, "cached": s.cached} for n, s in result.steps.items()}


@main.command()
@_recipe
@_runs
@_json
@_tracker
def run(recipe: Path, runs: Path, as_json: bool, tracker: str | None) -> None:
    """Run a recipe to the end: a package, a report, and a verdict."""
    from potstill import pipeline
    from potstill.show import announce_run, print_step, print_verdict, run_metrics

    loaded = _load(recipe, tracker)
    announce_run(loaded, runs / loaded.name)
    result = pipeline.run(loaded, runs, on_step=print_step)
    package, page = result.folder("package") / "package", result.dir / "report.html"
    if as_json:
        out = {
            "verdict": result.verdict,
            "stages": _stages(result),
            "metrics": run_metrics(result.folder("evaluate"), result.folder("train")),
            "package": str(package),
            "report": str(page),
        }
        click.echo(json.dumps(out))
    else:
        print_verdict(result.folder("gate"), package, page)
    sys.exit(VERDICT_CODES[result.verdict or "INCONCLUSIVE"])


def _stage_command(stage: str, text: str) -> Callable[..., None]:
    @main.command(stage, help=text)
    @_recipe
    @_runs
    @_json
    @_tracker
    def command(recipe: Path, runs: Path, as_json: bool, tracker: str | None) -> None:
        from potstill.show import print_stage

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
@_recipe
@_json
def plan(recipe: Path, as_json: bool) -> None:
    """Say how large the student will be, and what it needs, before anything is paid for."""
    from potstill.plan.budget import plan_recipe
    from potstill.show import print_plan

    planned = plan_recipe(_load(recipe))
    if as_json:
        click.echo(json.dumps(planned))
    else:
        print_plan(planned)
