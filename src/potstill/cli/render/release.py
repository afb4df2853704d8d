"""What `gate`, `compare`, `history` and `bisect` print."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.apps.registry.history import Break, ReleaseRates
from potstill.cli.render.tables import aligned
from potstill.components.suites.rates import ALL
from potstill.core.artifacts.release import Flip, ReleaseVerdict, SliceVerdict
from potstill.core.format import format_level, format_percent, format_points
from potstill.core.words import printable

__all__ = ["render_break", "render_flips", "render_history", "render_verdict"]

_SHOWN = 5
_LONG = 200


def render_verdict(verdict: ReleaseVerdict) -> str:
    """The board of a gate, why each slice is not PASS, and the first items that broke."""
    level = format_level(1 - 2 * verdict.alpha)
    head = ("slice", "before", "now", "broke", "fixed", "drop, points", f"{level} interval", "verdict")
    rows = [head, *(_row(each) for each in verdict.slices)]
    title = f"{verdict.candidate.name} on {verdict.suite}, against release {verdict.against}: "
    title += f"{verdict.items:,} items compared, {verdict.new_items:,} new ones not judged yet"
    lines = [title, "", *aligned(rows, left=(0, 7))]
    if reasons := [f"{each.slice}: {each.why}" for each in verdict.slices if each.verdict != "PASS"]:
        lines += ["", *reasons]
    if verdict.differing:
        lines += ["", f"Conditions that differ, as was asked for: {', '.join(verdict.differing)}."]
    if broken := [flip for flip in verdict.flips if flip.broken]:
        lines += ["", *render_flips(broken, _SHOWN)]
    return "\n".join([*lines, "", f"verdict  {verdict.verdict}"])


def _row(each: SliceVerdict) -> tuple[str, ...]:
    if each.items is None or each.drop is None or each.low is None or each.high is None:
        return (each.slice, "", "", "", "", "", "", each.verdict)
    counts = (f"{each.before:,} of {each.items:,}", f"{each.after:,}", f"{each.broken:,}", f"{each.fixed:,}")
    ends = f"{format_points(each.low)} to {format_points(each.high)}"
    return (each.slice, *counts, format_points(each.drop), ends, each.verdict)


def render_flips(flips: Sequence[Flip], most: int) -> list[str]:
    """Items that changed, with both answers."""
    lines = []
    for flip in flips[:most]:
        word = "broke" if flip.broken else "fixed"
        lines.append(f"{word}  {flip.item}{' core' if flip.core else ''}  [{', '.join(flip.tags)}]")
        for name in ("prompt", "expected", "before", "after"):
            label = {"expected": "right", "after": "now"}.get(name, name)
            lines.append(f"  {label:7}{printable(getattr(flip, name), _LONG) or '(empty)'}")
    return [*lines, f"... and {len(flips) - most:,} more"] if len(flips) > most else lines


def render_history(suite: str, found: Sequence[ReleaseRates]) -> str:
    """A column per release, a row per slice; a drop that is shown is marked."""
    names = [ALL, *sorted({each.tag for release in found for each in release.rates} - {ALL})]
    rows = [(suite, *(f"{release.number} ({release.name})" for release in found))]
    for name in names:
        cells = [_cell(release, name) for release in found]
        rows.append((name, *cells))
    broke = any(release.broke for release in found)
    note = ["", "v: a drop against the release before is shown."] if broke else []
    return "\n".join([*aligned(rows), *note])


def _cell(release: ReleaseRates, name: str) -> str:
    rate = next((each for each in release.rates if each.tag == name), None)
    if rate is None:
        return "-"
    return f"{'v ' if name in release.broke else ''}{format_percent(rate.rate)} of {rate.items:,}"


def render_break(found: Break) -> str:
    """Where something broke, and the items."""
    if found.number is None:
        return f"{found.what}: {found.why}"
    lines = [f"{found.what} broke in release {found.number} ({found.name}). {found.why}"]
    if found.repaired:
        lines.append(f"It is repaired in release {found.repaired}.")
    shown = ", ".join(found.items[: 2 * _SHOWN])
    more = f", and {len(found.items) - 2 * _SHOWN:,} more" if len(found.items) > 2 * _SHOWN else ""
    return "\n".join([*lines, f"items  {shown}{more}"])
