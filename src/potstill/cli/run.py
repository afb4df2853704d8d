"""`potstill check` and `potstill run`: a recipe's stages, up to the verdict."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from potstill.cli.options import json_option, load, offline_option, recipe_argument, runs_option, tracker_option

if TYPE_CHECKING:
    from potstill.core.recipe import AnyRecipe
    from potstill.pipeline.result import RunResult

__all__ = ["check", "run"]

VERDICT_CODES = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}
_AFTER_VERDICT = ("gate", "package", "report")
_STAGES = ("check", "finetune", "generate", "targets", "train", "worth", "export", "speed", "evaluate", *_AFTER_VERDICT)


@click.command()
@recipe_argument
@runs_option
@json_option
def check(recipe: Path, runs: Path, as_json: bool) -> None:
    """Validate recipe, rows, tokenizers, licences, disk and memory. Nothing is trained or paid for."""
    _run_until(load(recipe), runs, "check", as_json)


@click.command()
@recipe_argument
@runs_option
@json_option
@tracker_option
@offline_option
@click.option("--until", type=click.Choice(_STAGES), metavar="STAGE", help="Stop after this stage.")
@click.option(
    "--sweep", multiple=True, metavar="KEY=V1,V2", help="Run once for each value; stages in common run only once."
)
def run(
    recipe: Path,
    runs: Path,
    as_json: bool,
    tracker: str | None,
    offline: bool,
    until: str | None,
    sweep: tuple[str, ...],
) -> None:
    """Run a recipe to the end: a package, a report, and a verdict.

    Stages: check, finetune, generate, targets, train, worth, export, speed, evaluate, gate, package, report. A stage
    that has finished is not run again; a run that was killed goes on where it stopped.
    """
    variants = parse_sweep(sweep)
    if until is not None and sweep:
        raise click.UsageError("--until and --sweep cannot be combined: a sweep compares verdicts.")
    # all variants are read before the first one runs, so that an invalid value is not found after hours
    recipes = [load(recipe, tracker, changes, offline=offline) for changes in variants]
    if until is not None:
        sys.exit(_run_until(recipes[0], runs, until, as_json))
    sys.exit(_run_all(recipes, variants, runs, as_json))


def parse_sweep(sweep: tuple[str, ...]) -> list[dict[str, str]]:
    """Every combination of `KEY=VALUE,VALUE` options, as changes to the recipe; one empty change without options."""
    axes = []
    for option in sweep:
        key, equals, values = option.partition("=")
        if not equals or not key or not all(values.split(",")):
            raise click.UsageError(f"--sweep {option!r} is not KEY=VALUE,VALUE, for example train.learning_rate=1,2")
        axes.append([(key, value) for value in values.split(",")])
    return [dict(chosen) for chosen in itertools.product(*axes)]


def run_pipeline(recipe: AnyRecipe, runs: Path, until: str | None = None, variant: str = "") -> RunResult:
    """Run a recipe's stages and print each as it ends, on stderr."""
    from potstill.cli.render.run import announce_run, print_note, print_step
    from potstill.pipeline import run as pipeline

    announce_run(recipe, runs / recipe.name)
    return pipeline.run(recipe, runs, until=until, on_step=print_step, on_note=print_note, variant=variant)


def _run_until(recipe: AnyRecipe, runs: Path, stage: str, as_json: bool) -> int:
    from potstill.cli.render.run import print_stage

    result = run_pipeline(recipe, runs, until=stage)
    if as_json:
        click.echo(json.dumps(result.report().to_json()))
    else:
        print_stage(stage, result)
    return VERDICT_CODES[result.verdict or "INCONCLUSIVE"] if stage in _AFTER_VERDICT else 0


def _run_all(recipes: list[AnyRecipe], variants: list[dict[str, str]], runs: Path, as_json: bool) -> int:
    from potstill.cli.render.run import print_sweep, print_verdict

    results = []
    for recipe, changes in zip(recipes, variants, strict=True):
        variant = ",".join(f"{key}={value}" for key, value in changes.items()).replace("/", "-")
        results.append(run_pipeline(recipe, runs, variant=variant))
    reports = [result.report(changes) for result, changes in zip(results, variants, strict=True)]
    swept = variants != [{}]
    if as_json:
        found = [report.to_json() for report in reports]
        click.echo(json.dumps({"variants": found} if swept else found[0]))
    elif swept:
        print_sweep(reports)
    else:
        print_verdict(results[0])
    verdicts = {report.verdict for report in reports}
    # the worst of several: one that failed, then one that could not be decided
    return VERDICT_CODES[next(v for v in ("FAIL", "INCONCLUSIVE", "PASS") if v in verdicts)]
