"""What `potstill init --from` prints: files, guesses, and what to do next; and what a log holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.cli.render.page import say
from potstill.cli.render.tables import aligned
from potstill.core.format import format_count, format_percent, format_price

if TYPE_CHECKING:
    from potstill.apps.init.audit import Audit, LogCost
    from potstill.apps.init.start import Started

__all__ = ["say_audit", "say_started"]

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


_TASKS = 20


def say_audit(audit: Audit) -> None:
    """Print what a log holds: its tasks, what can be checked and taken over, and what it costs."""
    span = f" in {audit.days:.1f} days" if audit.days is not None else ""
    left_out = f"; {audit.left_out:,} entries could not be read" if audit.left_out else ""
    say(f"{format_count(audit.requests, 'request')}{span}, {audit.distinct:,} distinct prompts{left_out}.")
    say(f"Answered by {', '.join(f'{name}: {count:,}' for name, count in audit.models.items())}.")
    say("")
    table = [["requests", "share", "checkable", "answers", "task"]]
    for task in audit.tasks[:_TASKS]:
        kinds = ", ".join(f"{name} {count:,}" for name, count in task.kinds.items())
        share, checkable = task.requests / audit.requests, task.checkable / task.requests
        table.append([f"{task.requests:,}", format_percent(share), format_percent(checkable), kinds, task.name])
    for line in aligned(table, left=(3, 4)) if audit.tasks else ["No task has five requests or more."]:
        say(line.rstrip())
    say("")
    say(
        f"{format_count(len(audit.tasks), 'task')}; requests that belong to none: {audit.others:,}. "
        f"A program can check the answers of {_share(audit.checkable, audit)}."
    )
    say(
        f"A student could take {_share(audit.takeable, audit)} at most: those of a task, with a checkable answer, and "
        "a prompt of 8,192 tokens or less. A run says how many of them it answers right."
    )
    say(_said_of_cost(audit.cost) if audit.cost else "No price of these models is known; give one with --price.")


def _share(count: int, audit: Audit) -> str:
    return f"{format_count(count, 'request')} ({format_percent(count / audit.requests)})"


def _said_of_cost(cost: LogCost) -> str:
    month = f", which is {format_price(cost.per_month)} for 30 days" if cost.per_month is not None else ""
    guessed = f", with the tokens of {cost.estimated:,} estimated" if cost.estimated else ""
    said = (
        f"Cost of {format_count(cost.priced, 'request')} with a known price{guessed}: {format_price(cost.total)}{month}"
    )
    taken = f"of those that a student could take: {format_price(cost.takeable)}"
    return f"{said}; {taken}. Prices: {', '.join(cost.sources)}."
