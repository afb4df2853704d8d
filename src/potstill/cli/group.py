"""The root command: help grouped in the order of use, errors in one paragraph, and where old commands went."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from potstill.core.errors import MissingExtra, PotstillError
from potstill.core.files import file_errors
from potstill.core.words import escaped

__all__ = ["MESSAGE_CHARACTERS", "PotstillGroup"]

_EXTRA_OF = {
    "torch": "train", "transformers": "train", "accelerate": "train", "safetensors": "train", "zstandard": "train",
    "gguf": "run", "xllamacpp": "run", "httpx": "run", "matplotlib": "run", "openai": "api",
    "tenacity": "api", "httpx2": "api", "bitsandbytes": "int8", "cryptography": "sign",
    "starlette": "serve", "uvicorn": "serve", "prometheus_client": "serve",
}  # fmt: skip

MESSAGE_CHARACTERS = 3000
"""Length at which the message of an error is cut."""

_SECTIONS = {
    "Plan a student": ("devices", "fit", "search", "plan", "licences", "calibrate-device"),
    "Make it": ("init", "data", "check", "run"),
    "Test what you ship": ("suite", "evaluate", "release", "gate", "compare", "history", "bisect"),
    "Look into a run and its package": ("targets", "verify", "sign", "update", "bench"),
    "Use it": ("calibrate", "serve", "drift"),
}

_STAGES = ("finetune", "generate", "train", "export", "evaluate", "gate", "package", "report")
MOVED = {stage: f"potstill run RECIPE --until {stage}" for stage in _STAGES}
"""Commands of earlier versions, and what to type now."""


class PotstillGroup(click.Group):
    """Prints potstill's own errors in one paragraph and exits with their code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with file_errors("the working directory"):  # those of a write or a read that no function expects
                return super().invoke(ctx)
        except PotstillError as error:
            _fail(error)
        except click.ClickException as error:
            # a folder may have given a file its name; click declares the attribute as final
            vars(error)["message"] = escaped(error.message, MESSAGE_CHARACTERS)
            raise
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(
                MissingExtra(
                    f"{error.name} is not installed, and this command needs it. "
                    f"Install it with: pip install 'potstill[{extra}]'"
                )
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in MOVED and args[0] not in self.commands:
            raise click.UsageError(f"'potstill {args[0]}' is now: {MOVED[args[0]]}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        known = [name for names in _SECTIONS.values() for name in names if name in self.commands]
        return known + sorted(self.commands.keys() - set(known))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, names in _SECTIONS.items():
            rows = [(name, self.commands[name].get_short_help_str(width)) for name in names if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _fail(error: PotstillError) -> NoReturn:
    message = escaped(str(error), MESSAGE_CHARACTERS)  # it may quote a file, a model or an endpoint
    click.echo(f"potstill: {message}", err=True)
    sys.exit(error.exit_code)
