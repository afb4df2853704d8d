"""`potstill serve`: a package behind OpenAI's API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.cli.options import json_option

if TYPE_CHECKING:
    from potstill.apps.serve.service import Service
    from potstill.apps.serve.settings import Settings

__all__ = ["serve"]


@click.command()
@click.argument("package", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for a free one.")
@click.option("--keys", metavar="FILE", type=click.Path(path_type=Path), help="File with one API key per line.")
@click.option("--context", type=click.IntRange(min=16), metavar="N", help="Tokens per request. Default: the recipe's.")
@click.option("--parallel", type=click.IntRange(1, 256), default=2, show_default=True, help="Requests at once.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of llama.cpp.")
@click.option("--waiting", type=click.IntRange(min=0), default=16, show_default=True, help="Requests that may wait.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Tokens of an answer.")
@click.option("--body-kb", type=click.IntRange(min=1), default=1024, show_default=True, help="Size of a request.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=120, show_default=True, help="Limit per request.")
@json_option
def serve(package: Path, as_json: bool, **options: Any) -> None:
    """Serve a package's file behind OpenAI's API.

    The package is verified before it is loaded, and again when one of its files changes. Only this machine can reach
    the server, unless --host says otherwise; API keys are then required. They come from --keys and from the environment
    variable POTSTILL_API_KEYS.
    """
    from potstill.apps.serve.server import serve as run
    from potstill.cli.render.page import print_json, say

    def ready(service: Service, address: str) -> None:
        if as_json:
            print_json({"url": f"{address}/v1", "model": service.package.name})
        say(f"Serving {service.package.name} on {address}/v1. Press Ctrl-C to stop.", err=True)

    run(_settings(package, options), ready, lambda text: say(text, err=True))


def _settings(package: Path, options: dict[str, Any]) -> Settings:
    from potstill.apps.serve.settings import Limits, Settings, read_keys

    limits = Limits(
        body_bytes=1024 * options["body_kb"],
        max_tokens=options["max_tokens"],
        request_seconds=options["seconds"],
        waiting=options["waiting"],
    )
    return Settings(
        package=package,
        host=options["host"],
        port=options["port"],
        context=options["context"],
        parallel=options["parallel"],
        threads=options["threads"],
        keys=read_keys(os.environ.get("POTSTILL_API_KEYS", ""), options["keys"]),
        limits=limits,
    )
