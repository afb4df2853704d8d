"""`potstill data`: rows from existing answers, and what a run learns from. `potstill targets`: a store of targets."""

from __future__ import annotations

import json
from pathlib import Path

import click

from potstill.cli.options import json_option, runs_option

__all__ = ["data", "targets"]

_SHOWN = 3


@click.group()
def targets() -> None:
    """Inspect a store of teacher distributions."""


@targets.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Print how large a store is and how close it is to the teacher.

    Bytes and token ids per token, tail mass, and the divergence between the teacher and what is stored of it.
    """
    from potstill.cli.render.page import say
    from potstill.components.targets import render_stats, store_stats

    found = store_stats(folder)
    say(json.dumps(found.to_json()) if as_json else render_stats(found))


@click.group()
def data() -> None:
    """Make rows from answers that you already have, and look at what a run learns from."""


@data.command()
@click.argument("requests", type=click.Path(path_type=Path))
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("rows", type=click.Path(path_type=Path))
@json_option
def batch(requests: Path, results: Path, rows: Path, as_json: bool) -> None:
    """Write the answers of an OpenAI Batch job into ROWS.

    REQUESTS is the file that was uploaded, RESULTS the one that was downloaded. To learn from the answers without
    asking a teacher, name ROWS as data.prompts and set generate.samples to 0.
    """
    from potstill.apps.data.batch import rows_of_batch
    from potstill.cli.render.page import print_json, say
    from potstill.core.format import format_count

    if rows.exists():
        raise click.UsageError(f"{rows} exists. Name a new file.")
    found = rows_of_batch(requests, results, rows)
    if as_json:
        print_json(found)
        return
    say(f"{rows}: {format_count(found.rows, 'row')}.")
    if found.cut_off:
        say(f"{format_count(found.cut_off, 'answer')} did not end by itself: no end token is learnt there.")
    if found.left_out:
        more = "; ..." if len(found.left_out) > _SHOWN else ""
        say(f"{format_count(len(found.left_out), 'request')} left out. {'; '.join(found.left_out[:_SHOWN])}{more}")


@data.command()
@click.argument("path", metavar="RECIPE_OR_RUN", type=click.Path(path_type=Path))
@runs_option
@json_option
def coverage(path: Path, runs: Path, as_json: bool) -> None:
    """Print the quotas of a curriculum, the accepted rows of each, and what is missing.

    RECIPE_OR_RUN is a recipe with data.curriculum or the directory of a run. Before the first run, the prompts that the
    recipe starts from are counted.
    """
    from potstill.apps.data.step import find_coverage
    from potstill.cli.render.data import say_coverage
    from potstill.cli.render.page import print_json

    found, accepted = find_coverage(path, runs)
    if as_json:
        print_json({"accepted": accepted, **found.to_json()})
    else:
        say_coverage(found, accepted=accepted)


@data.command()
@click.argument("path", metavar="RECIPE_OR_RUN", type=click.Path(path_type=Path))
@click.option("--rejected", is_flag=True, help="Show the rejected rows, each with its reason.")
@click.option("--reason", metavar="NAME", help="Only rows that were rejected for this reason, such as gold.")
@runs_option
@json_option
def rows(path: Path, rejected: bool, reason: str | None, runs: Path, as_json: bool) -> None:
    """Page through the rows that a run learns from, or through the rejected ones."""
    from potstill.apps.data.step import find_rows
    from potstill.cli.render.data import row_pages
    from potstill.cli.render.page import print_json, say

    found = find_rows(path, runs, rejected=rejected or reason is not None)
    shown = [row for row in found if reason is None or row.provenance.get("rejected") == reason]
    if as_json:
        print_json({"rows": [row.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for row in shown]})
    elif shown:
        click.echo_via_pager(row_pages(shown))
    else:
        say("There are no such rows.")
