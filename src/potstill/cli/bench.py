"""`potstill bench`: speed and memory of a package on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["bench"]


@click.command()
@click.argument("package", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the result as JSON into FILE, for target.measured in the recipe; '-' prints only the JSON.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of llama.cpp. Default: the run's.")
@click.option("--requests", type=click.IntRange(min=3), metavar="N", help="Timed requests. Default: the run's.")
def bench(package: Path, file: Path | None, threads: int | None, requests: int | None) -> None:
    """Measure a package's speed and memory on this machine, for the gates of its recipe.

    The GGUF file runs in llama.cpp, in three processes one after the other, with prompts as long as those of the
    recipe's test rows. Only xllamacpp and httpx are needed: pip install 'potstill[device]'.
    """
    from potstill.apps.bench.bench import bench_package
    from potstill.cli.render.bench import render_bench
    from potstill.cli.render.page import print_page, say
    from potstill.core.files import write_json

    found = bench_package(package, threads, requests)
    if file == Path("-"):
        click.echo(json.dumps(found.to_json()))
        return
    print_page(render_bench(found))
    if file:
        write_json(file, found.to_json())
        say(f"{file}: set target.measured to this file in the recipe, and run it again.", err=True)
