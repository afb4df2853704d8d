"""`potstill suite`: test sets that grow and never lose an item."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.cli.options import PlainFloat, json_option

if TYPE_CHECKING:
    from potstill.components.suites.folder import Suite

__all__ = ["suite"]

_SHOWN = 20
KINDS = ("bfcl", "clinc150", "csv", "gsm8k", "ifeval", "items", "promptfoo", "rows")

BUILTIN = ("arithmetic", "instructions", "messy", "needle", "refusal", "schema", "tools", "units")

suite_argument = click.argument("folder", metavar="SUITE", type=click.Path(path_type=Path))


@click.group()
def suite() -> None:
    """Make test suites: append-only folders of items, each with what a right answer is."""


def _read(folder: Path) -> Suite:
    from potstill.components.suites.folder import read_suite

    return read_suite(folder)


def _make(folder: Path, **values: Any) -> Suite:
    from pydantic import ValidationError

    from potstill.components.suites.folder import new_suite
    from potstill.core.artifacts.suite import SuiteRecord

    name = values.pop("name", None) or folder.absolute().name
    try:
        record = SuiteRecord(name=name, **values)
    except ValidationError:
        raise click.UsageError(
            f"{name!r} cannot be the name of a suite: it may have letters, digits, dots, hyphens and underscores. "
            "Set another with --name, or name the folder differently."
        ) from None
    return new_suite(folder, record)


def _say_size(found: Suite, more: str) -> None:
    from potstill.cli.render.page import say
    from potstill.core.format import format_count

    drafts = f" ({format_count(len(found.drafts), 'draft')})" if found.drafts else ""
    say(f"{found.folder}: {more}. The suite has {format_count(len(found.items), 'item')}{drafts}.")


@suite.command()
@suite_argument
@click.option("--name", help="Name in tables and registries. Default: the folder's name.")
@click.option("--description", default="", help="What the suite tests.")
@click.option("--license", "licence", default="", help="Licence of the items.")
def new(folder: Path, name: str | None, description: str, licence: str) -> None:
    """Make an empty suite."""
    _say_size(_make(folder, name=name or "", description=description, license=licence), "made")


@suite.command()
@suite_argument
@click.argument("items", required=False, type=click.Path(path_type=Path))
@click.option("--prompt", help="Instead of ITEMS: the user's message of one item.")
@click.option("--expect", metavar="KIND=VALUE", help="What is right, such as numeric=42 or 'one_of=yes|no'.")
@click.option("--tag", "tags", multiple=True, help="Behaviour that the item tests. Can be repeated.")
@click.option("--core", is_flag=True, help="A release may never lose this item.")
@click.option("--group", help="Items of one group are not independent.")
def add(
    folder: Path,
    items: Path | None,
    prompt: str | None,
    expect: str | None,
    tags: tuple[str, ...],
    core: bool,
    group: str | None,
) -> None:
    """Add the items of a JSONL file, or one item that the options give.

    A line of ITEMS is {"messages": [...], "expected": {"kind": ..., ...}, "tags": [...]}. Items that the suite has
    already are skipped.
    """
    from potstill.components.suites.folder import add_items
    from potstill.components.suites.importers.csv_file import expected_value
    from potstill.components.suites.importers.imported import user_item
    from potstill.components.suites.items import read_items
    from potstill.core.format import format_count

    if (items is None) == (prompt is None) or (prompt is None) != (expect is None):
        raise click.UsageError("Give a file of items, or --prompt and --expect for one item.")
    if items is not None and (tags or core or group):
        raise click.UsageError("--tag, --core and --group are for --prompt. Items of a file have their own.")
    if items is not None:
        new_items = read_items(items)
    else:
        assert prompt is not None and expect is not None
        kind, _, value = expect.partition("=")
        expected = expected_value(kind.strip(), value, "--expect")
        labels: dict[str, Any] = {"tags": list(tags), "core": core} | ({"group": group} if group else {})
        new_items = [user_item(prompt, expected, "--prompt, --expect and --tag", **labels)]
    found, known = add_items(_read(folder), new_items)
    skipped = f", {known:,} known already" if known else ""
    _say_size(found, f"{format_count(len(new_items) - known, 'item')} added{skipped}")


@suite.command("import")
@suite_argument
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "kind", type=click.Choice(KINDS), default="rows", show_default=True, help="Kind of SOURCE.")
@click.option("--split", default="test", show_default=True, help="Part of a data set with several.")
@click.option("--tools", type=click.Path(path_type=Path), help="JSON file with the tools of rows without their own.")
@click.option("--tag", "tags", multiple=True, help="One more tag for every item. Can be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Import at most this many items, drawn by a fixed seed.")
def import_(
    folder: Path, source: Path, kind: str, split: str, tools: Path | None, tags: tuple[str, ...], limit: int | None
) -> None:
    """Add items from SOURCE; the suite is made if it does not exist.

    Items that the suite has already are skipped, so an import can be repeated. What cannot become an item is counted.
    """
    from potstill.cli.render.page import say
    from potstill.components.suites.folder import add_items
    from potstill.components.suites.importers import IMPORTERS, Source
    from potstill.components.suites.items import drawn, without_repeats
    from potstill.core.format import format_count

    found = IMPORTERS[kind](Source(source, split, tools))
    items = without_repeats(found.items)
    if limit:
        items = drawn(items, limit)
    items = [item.model_copy(update={"tags": tuple(dict.fromkeys((*item.tags, *tags)))}) for item in items]
    if not items:
        raise click.UsageError(f"{source}: it has no entry that can become an item. {_reasons(found.left_out)}")
    into = _read(folder) if folder.exists() else _make(folder, source=source.name)
    suite_now, known = add_items(into, items)
    skipped = f", {known:,} known already" if known else ""
    _say_size(suite_now, f"{format_count(len(items) - known, 'item')} added{skipped}")
    repeats = len(found.items) - len(without_repeats(found.items))
    if repeats:
        say(f"Entries of the source that repeat others: {repeats:,}.")
    if found.left_out:
        say(_reasons(found.left_out))


@suite.command()
@suite_argument
@click.option("--kind", type=click.Choice(BUILTIN), required=True, help="What the items test.")
@click.option("--count", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Number of items.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the items.")
def generate(folder: Path, kind: str, count: int, seed: int) -> None:
    """Add items that seeded code writes; the suite is made if it does not exist. No data is needed.

    The same seed gives the same items, and a larger count begins with those of a smaller one.
    """
    from potstill.components.suites.builtin import generate_items
    from potstill.components.suites.folder import add_items
    from potstill.core.format import format_count

    items = generate_items(kind, count, seed)
    into = _read(folder) if folder.exists() else _make(folder, source=f"potstill, {kind} with seed {seed}")
    found, known = add_items(into, items)
    skipped = f", {known:,} known already" if known else ""
    _say_size(found, f"{format_count(len(items) - known, 'item')} added{skipped}")


def _reasons(left_out: Any) -> str:
    return " ".join(f"Left out {count:,}: {reason}." for reason, count in left_out.most_common())


@suite.command()
@suite_argument
@click.option("--margin", type=PlainFloat(0.0001, 0.5), default=0.05, show_default=True,
              help="Drop that a gate should be able to exclude, as a share.")  # fmt: skip
@json_option
def lint(folder: Path, margin: float, as_json: bool) -> None:
    """Find items that cannot be answered, contradict each other or say nothing. The exit code is 1 for errors."""
    from potstill.cli.render.page import print_json, say
    from potstill.components.suites.lint import lint as find
    from potstill.core.format import format_count

    read = _read(folder)
    found = find(read, margin=margin)
    errors = sum(each.level == "error" for each in found)
    if as_json:
        print_json({"suite": read.record.name, "items": len(read.items), "findings": found})
    else:
        for each in found[:_SHOWN]:
            say(f"{each.level}: {each.what}")
        if len(found) > _SHOWN:
            say(f"... and {len(found) - _SHOWN:,} more; --json prints all of them.")
        say(f"{folder}: {format_count(errors, 'error')}, {format_count(len(found) - errors, 'warning')}.")
    sys.exit(1 if errors else 0)


@suite.command()
@suite_argument
def freeze(folder: Path) -> None:
    """Freeze all items as a new version. From then on none of them may be changed or removed."""
    from potstill.cli.render.page import say
    from potstill.components.suites.folder import freeze as freeze_items
    from potstill.core.format import format_count

    before = _read(folder)
    found = freeze_items(before)
    items = format_count(len(found.items), "item")
    say(f"{folder}: version {found.record.version} has {items} ({len(before.drafts):,} new).")


@suite.command()
@suite_argument
@click.argument("other", required=False, metavar="[OTHER]", type=click.Path(path_type=Path))
@click.option(
    "--since", type=click.IntRange(min=0), help="Without OTHER: compare with this version. Default: the last."
)
@json_option
def diff(folder: Path, other: Path | None, since: int | None, as_json: bool) -> None:
    """Print the items that SUITE has and OTHER has not, and the other way round; or those new since a version."""
    from potstill.cli.render.page import print_json, say
    from potstill.components.suites.compare import difference, since_version

    read = _read(folder)
    found = difference(read, _read(other)) if other else since_version(read, since)
    if as_json:
        print_json(found)
        return
    for sign, items in (("+", found.added), ("-", found.removed), ("~", found.relabelled)):
        for item in items[:_SHOWN]:
            say(f"{sign} {item}")
        if len(items) > _SHOWN:
            say(f"{sign} ... and {len(items) - _SHOWN:,} more")
    say(
        f"{len(found.added):,} added, {len(found.removed):,} removed, {len(found.relabelled):,} with other labels; "
        f"{found.same:,} the same."
    )


@suite.command()
@suite_argument
@click.option("--tag", help="Only drafts with this tag.")
def review(folder: Path, tag: str | None) -> None:
    """Go through the drafts one by one: keep, drop, or stop. Dropped drafts are removed from the suite."""
    from potstill.cli.render.page import say
    from potstill.components.suites.checks import expected_text
    from potstill.components.suites.folder import remove_drafts
    from potstill.core.format import format_count

    read = _read(folder)
    drafts = [item for item in read.drafts if tag is None or tag in item.tags]
    dropped: list[str] = []
    for number, item in enumerate(drafts, 1):
        say(f"\n{number} of {len(drafts)}: item {item.item_id}  [{', '.join(item.tags)}]{' core' if item.core else ''}")
        for message in item.messages:
            say(f"  {message.role}: {message.content or ''}")
        say(f"  right: {expected_text(item.expected)}")
        answer = click.prompt("keep, drop or stop", type=click.Choice(["k", "d", "s"]), default="k")
        if answer == "s":
            break
        if answer == "d":
            dropped.append(item.item_id)
    found = remove_drafts(read, dropped)
    _say_size(found, f"{len(dropped):,} of {format_count(len(drafts), 'draft')} dropped")
