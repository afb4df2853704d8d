"""`potstill verify`: compare a package with its manifest."""

from __future__ import annotations

from pathlib import Path

import click

from potstill.cli.options import json_option

__all__ = ["verify"]


@click.command()
@click.argument("folder", metavar="PACKAGE", type=click.Path(path_type=Path))
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Compare every file of a package with its manifest.

    This shows that the package is complete and unchanged since it was made. It does not show who made it. The exit code
    is 1 if it differs from its manifest.
    """
    from potstill.cli.render.page import print_json, say
    from potstill.components.packages.verify import verify_package
    from potstill.core.errors import StepError

    if not folder.is_dir():
        raise click.UsageError(f"{folder}: no such folder. Name the package that a run has left.")
    problems = verify_package(folder)
    if as_json:
        print_json({"package": str(folder), "whole": not problems, "problems": problems})
    elif not problems:
        say(f"{folder}: every file is as its manifest says.")
    if problems:
        raise StepError(f"{folder}: {'the package differs from its manifest.' if as_json else ' '.join(problems)}")
