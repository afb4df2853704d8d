"""`potstill targets`: what a store of teacher distributions holds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from potstill.cli.options import json_option

__all__ = ["targets"]


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
