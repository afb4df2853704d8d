"""What `potstill init --from` prints: files, guesses, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.cli.render.page import say

if TYPE_CHECKING:
    from potstill.apps.init.start import Started

__all__ = ["say_started"]

_SHOWN = 3


def say_started(started: Started) -> None:
    """Print what was written, what was guessed, and the next commands."""
    rows = ", ".join(f"{count:,} {name}" for name, count in started.rows.items())
    say(f"{started.folder}: {', '.join(started.files)}; rows: {rows}.")
    say("Guessed:")
    for guess in started.guesses:
        say(f"  - {guess}.")
    if started.left_out:
        say(f"Entries that could not be used: {len(started.left_out):,}")
        for reason in started.left_out[:_SHOWN]:
            say(f"  - {reason}")
        if len(started.left_out) > _SHOWN:
            say("  - ...")
    recipe = started.folder / "recipe.yaml"
    say("Next: read the recipe and some test rows, set the models and the licences, then")
    for command in ("check", "plan", "run"):
        say(f"  potstill {command} {recipe}")
