"""Prints a command's result: a page for people, or one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from potstill.core.words import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["console", "print_json", "print_page", "say"]

_LOG_WIDTH = 110


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text on standard output or standard error; control characters in them as `\\x1b`."""
    click.echo(escaped(text, len(text)), err=err)


def console(*, err: bool = False) -> Console:
    """Standard output or standard error. Where it is not a terminal, lines are not wrapped.

    Control characters are printed as `\\x1b`: names and notes may come from a recipe, a model or a package.
    """
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(escaped(part.text, len(part.text)), part.style)

    out = Plain(stderr=err, highlight=False, soft_wrap=True)
    if not out.is_terminal:  # a log file has no width to wrap to
        out.width = _LOG_WIDTH
    return out


def print_page(page: RenderableType) -> None:
    """Print a page. Sentences are wrapped where the width is known; in a pipe each stays one line, to be searched."""
    from rich.console import Console

    out = console()
    known = out.is_terminal
    if not known and "COLUMNS" in os.environ:
        known, out.width = True, Console().width
    out.print(page, soft_wrap=not known)


def print_json(value: Any) -> None:
    """Print what a result holds (dataclasses and pydantic models, nested) as one JSON object."""
    from pydantic_core import to_jsonable_python

    click.echo(json.dumps(to_jsonable_python(value)))
