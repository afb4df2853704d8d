"""`potstill release`, `gate`, `compare`, `history` and `bisect`: releases, and what they lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potstill.cli.evaluate import CONFIDENCE, asking_options, evaluated
from potstill.cli.options import PlainFloat, json_option

if TYPE_CHECKING:
    from potstill.core.artifacts.suite_results import ItemResult, SuiteResults

__all__ = ["bisect", "compare", "gate", "history", "release"]

_CODES = {"PASS": 0, "WAIVED": 0, "FAIL": 3, "INCONCLUSIVE": 4}

alpha_option = click.option(
    "--alpha", type=PlainFloat(0.0001, 0.4), default=0.05, show_default=True,
    help="Probability that an unchanged model fails.",
)  # fmt: skip
across_option = click.option(
    "--across", multiple=True, metavar="CONDITION",
    help="Compare although this condition differs, such as quantization or processor. Can be repeated.",
)  # fmt: skip
registry_option = click.option(
    "--registry", type=click.Path(path_type=Path), required=True, help="Folder of the registry."
)
suite_option = click.option("--suite", help="Name of the suite. Default: the only one.")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@registry_option
@click.option("--package", type=click.Path(path_type=Path), help="The model's package; its manifest is recorded too.")
@click.option("--name", help="Name of the release, such as v1.2. Default: its number.")
@json_option
def release(results: tuple[Path, ...], registry: Path, package: Path | None, name: str | None, as_json: bool) -> None:
    """Record a release: RESULTS of one model, as `potstill evaluate` wrote them, one folder per suite.

    A registry only grows: each release names the hash of the one before, and files are stored by their hash.
    """
    from potstill.apps.registry.registry import record_release
    from potstill.cli.render.page import print_json, say

    found = record_release(registry, results, package, name)
    if as_json:
        print_json({"entry": found.entry, "release": found.release})
        return
    suites = ", ".join(each.suite for each in found.release.suites)
    say(f"{registry}: release {found.title} is {found.release.model.name}, with results on {suites}.")


@click.command()
@click.argument("target", metavar="TARGET_OR_RESULTS")
@click.option(
    "--against", required=True, metavar="REGISTRY[@RELEASE]", help="The release to compare with. Default: the last."
)
@asking_options
@alpha_option
@click.option("--margin", type=PlainFloat(0.0001, 1), default=0.05, show_default=True,
              help="Drop that PASS excludes, as a share.")  # fmt: skip
@click.option("--willing-to-lose", "accepted", multiple=True, metavar="TAG=SHARE",
              help="Drop that is accepted for a tag, such as refuse=0.02. Can be repeated.")  # fmt: skip
@click.option("--tag", "tags", multiple=True, help="Judge all items and this tag, not every tag. Can be repeated.")
@click.option("--waivers", type=click.Path(path_type=Path), help="YAML file with losses that are accepted in writing.")
@across_option
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML into this file.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write Markdown for a pull request into this file.")
@json_option
def gate(
    target: str,
    against: str,
    alpha: float,
    margin: float,
    accepted: tuple[str, ...],
    tags: tuple[str, ...],
    waivers: Path | None,
    across: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    """Judge a candidate against a release, on the items that both answered.

    The candidate is a folder of results, or a target that is first evaluated on --suite. A drop that is shown FAILs; a
    drop of the margin that is excluded PASSes; anything else is INCONCLUSIVE. Exit codes: 0 PASS or WAIVED, 3 FAIL, 4
    INCONCLUSIVE.
    """
    from potstill.apps.registry.gate import GateSettings, judge_release
    from potstill.apps.registry.registry import find_release, results_of, split_version
    from potstill.apps.registry.reports import junit as as_junit
    from potstill.apps.registry.reports import markdown as as_markdown
    from potstill.apps.registry.waivers import read_waivers
    from potstill.cli.render.page import print_json, say
    from potstill.cli.render.release import render_verdict
    from potstill.core.files import write_text

    settings = GateSettings(alpha, margin, _shares(accepted), tags, across)
    waived = read_waivers(waivers) if waivers else []
    released = find_release(*split_version(against))
    candidate = _results(target, asking)
    before = results_of(released, candidate[0].suite)
    if before is None:
        raise click.UsageError(f"Release {released.title} has no results on the suite {candidate[0].suite}.")
    verdict = judge_release(before, candidate, released.title, settings, waived)
    # the verdict is printed first, because it must not be lost if a file cannot be written
    if as_json:
        print_json(verdict.to_json())
    else:
        say(render_verdict(verdict))
    if junit:
        write_text(junit, as_junit(verdict))
    if markdown:
        write_text(markdown, as_markdown(verdict))
    sys.exit(_CODES[verdict.verdict])


def _shares(options: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for option in options:
        tag, equals, text = option.rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = -1
        if not equals or not 0 < share < 1:
            raise click.UsageError(f"--willing-to-lose {option!r} is not TAG=SHARE, for example refuse=0.02.")
        found[tag] = share
    return found


def _results(target: str, asking: dict[str, Any]) -> tuple[SuiteResults, list[ItemResult]]:
    """The results in a folder, or those of a target that is evaluated now."""
    from potstill.core.artifacts.suite_results import SuiteResults, read_results

    if (Path(target) / SuiteResults.FILE).is_file():
        return read_results(Path(target))
    if asking["suite_folder"] is None:
        raise click.UsageError(
            f"{target}: there is no {SuiteResults.FILE} in it, so it is not a folder of results. Give such a "
            "folder, or name the suite with --suite to evaluate a model first."
        )
    found = evaluated(target, None, **asking)
    return found.results, list(found.items)


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@suite_option
@alpha_option
@across_option
@click.option("--flips", "most", type=click.IntRange(min=0), default=10, show_default=True, help="Items to print.")
@json_option
def compare(
    first: str, second: str, suite: str | None, alpha: float, across: tuple[str, ...], most: int, as_json: bool
) -> None:
    """Compare two results side by side: paired tests per tag, and the items that changed with both answers.

    A and B are folders of results, or REGISTRY@RELEASE.
    """
    from potstill.apps.registry.gate import GateSettings, judge_release
    from potstill.cli.render.page import print_json, say
    from potstill.cli.render.release import render_flips, render_verdict

    before, after = _recorded(first, suite), _recorded(second, suite)
    found = judge_release(before, after, first, GateSettings(alpha=alpha, across=across))
    if as_json:
        print_json(found.to_json())
        return
    say(render_verdict(found.model_copy(update={"flips": ()})).rpartition("\n\n")[0])
    broken = sum(flip.broken for flip in found.flips)
    say(f"\n{broken:,} items broke and {len(found.flips) - broken:,} were fixed from {first} to {second}.")
    for line in render_flips(found.flips, most):
        say(line)


def _recorded(name: str, suite: str | None) -> tuple[SuiteResults, list[ItemResult]]:
    """Results in a folder or of a release."""
    from potstill.apps.registry.history import with_results
    from potstill.apps.registry.registry import RELEASES, find_release, split_version
    from potstill.core.artifacts.suite_results import SuiteResults, read_results

    if (Path(name) / SuiteResults.FILE).is_file():
        return read_results(Path(name))
    folder, version = split_version(name)
    if not (folder / RELEASES).is_file():
        raise click.UsageError(f"{name}: this is neither a folder of results nor a release. Give REGISTRY@RELEASE.")
    ((_, results, items),) = with_results([find_release(folder, version)], suite)
    return results, items


@click.command()
@registry_option
@suite_option
@alpha_option
@json_option
def history(registry: Path, suite: str | None, alpha: float, as_json: bool) -> None:
    """Print the rate of every tag in every release, and mark drops that are shown."""
    from potstill.apps.registry.history import history as rates_of
    from potstill.apps.registry.history import with_results
    from potstill.apps.registry.registry import read_registry
    from potstill.cli.render.page import print_json, say
    from potstill.cli.render.release import render_history

    measured = with_results(read_registry(registry), suite)
    found = rates_of(measured, CONFIDENCE, alpha)
    if as_json:
        print_json({"suite": measured[0][1].suite, "confidence": CONFIDENCE, "releases": found})
    else:
        say(render_history(measured[0][1].suite, found))


@click.command()
@click.argument("what", metavar="ITEM_OR_TAG")
@registry_option
@suite_option
@alpha_option
@across_option
@json_option
def bisect(what: str, registry: Path, suite: str | None, alpha: float, across: tuple[str, ...], as_json: bool) -> None:
    """Name the first release in which an item or a tag broke."""
    from potstill.apps.registry.history import bisect as find
    from potstill.apps.registry.history import with_results
    from potstill.apps.registry.registry import read_registry
    from potstill.cli.render.page import print_json, say
    from potstill.cli.render.release import render_break

    found = find(with_results(read_registry(registry), suite), what, alpha, across)
    if as_json:
        print_json(found)
    else:
        say(render_break(found))
