"""`potstill evaluate`: a model on a suite, item by item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from potstill.cli.options import json_option

if TYPE_CHECKING:
    from potstill.apps.suites.evaluate import Evaluated

__all__ = ["asking_options", "evaluate", "evaluated"]

CONFIDENCE = 0.95
"""Level of the intervals of rates."""
Command = TypeVar("Command", bound=Callable[..., Any])

_HOME = Path("evaluations")
_OPTIONS = (
    click.option("--suite", "-s", "suite_folder", metavar="SUITE", type=click.Path(path_type=Path),
                 help="Folder of the suite."),
    click.option("--context", type=click.IntRange(min=1), metavar="TOKENS",
                 help="Limit of prompt and answer together. Default: the model's, at most 4,096."),
    click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, metavar="TOKENS",
                 help="Limit of an answer."),
    click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
                 help="Items that a model's folder decodes together."),
    click.option("--parallel", type=click.IntRange(min=1), default=4, show_default=True,
                 help="Requests at the same time, to llama.cpp or an endpoint."),
    click.option("--threads", type=click.IntRange(min=1), help="Threads of llama.cpp. Default: one per core."),
    click.option("--model", metavar="NAME", help="An endpoint's name for the model."),
    click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, metavar="NAME",
                 help="Environment variable that holds the endpoint's key."),
    click.option("--home", type=click.Path(path_type=Path), default=_HOME, show_default=True,
                 help="Folder of all evaluations and of the answers so far."),
)  # fmt: skip


def asking_options(command: Command) -> Command:
    """Adds the options that say how a model is asked; `evaluated` takes their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def evaluated(target: str, out: Path | None, suite_folder: Path | None, home: Path, **asking: Any) -> Evaluated:
    """The results of a target on a suite."""
    from potstill.apps.suites.evaluate import evaluate as run
    from potstill.apps.suites.targets import Asking
    from potstill.components.suites.folder import read_suite

    if suite_folder is None:
        raise click.UsageError("Name the suite with --suite.")
    return run(read_suite(suite_folder), target, Asking(**asking), out, home)


@click.command()
@click.argument("target")
@asking_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results. Default: HOME/SUITE/MODEL-HASH.")
@json_option
def evaluate(target: str, out: Path | None, as_json: bool, **asking: Any) -> None:
    """Ask a model every item of a suite, and print the rate of right answers per tag.

    TARGET is a model's folder, a GGUF file, a package, or the address of an OpenAI-compatible endpoint. Answers that
    the same model gave under the same conditions are not asked for again.
    """
    from potstill.cli.render.page import print_json, say
    from potstill.cli.render.suite import render_evaluation
    from potstill.components.suites.rates import rates

    found = evaluated(target, out, **asking)
    if as_json:
        tags = rates(found.items, CONFIDENCE)
        print_json({"folder": str(found.folder), "results": found.results, "confidence": CONFIDENCE, "rates": tags})
        return
    say(render_evaluation(found.results, found.items, CONFIDENCE))
    say(f"\nresults  {found.folder}")
