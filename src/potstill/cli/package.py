"""`potstill verify`: whether a package is whole."""

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

    This shows that a package is complete and unchanged since it was made, not who made it. Exit code 1 if it is not.
    """
    from potstill.cli.render.page import print_json
    from potstill.components.packages.verify import verify_package
    from potstill.core.errors import StepError

    if not folder.is_dir():
        raise click.UsageError(f"{folder}: no such folder. Name the package that a run has left.")
    problems = verify_package(folder)
    if as_json:
        print_json({"package": str(folder), "whole": not problems, "problems": problems})
    elif not problems:
        click.echo(f"{folder}: every file is as its manifest says.")
    if problems:
        raise StepError(f"{folder}: {' '.join(problems)}" if not as_json else f"{folder}: the package is not whole.")
