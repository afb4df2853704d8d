"""The verdict on a candidate for CI systems: JUnit XML, and Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from potstill.core.artifacts.release import Flip, ReleaseVerdict, SliceVerdict
from potstill.core.format import format_points
from potstill.core.words import escaped, printable

__all__ = ["junit", "markdown"]

_SHOWN = 20
_LONG = 400


def junit(verdict: ReleaseVerdict) -> str:
    """JUnit XML: a test case per slice. FAIL is a failure; INCONCLUSIVE and WAIVED are skipped, with the reason."""
    counts = {word: sum(each.verdict == word for each in verdict.slices) for word in ("FAIL", "INCONCLUSIVE", "WAIVED")}
    suite = ElementTree.Element(
        "testsuite",
        name=f"{verdict.suite} against {verdict.against}",
        tests=str(len(verdict.slices)),
        failures=str(counts["FAIL"]),
        skipped=str(counts["INCONCLUSIVE"] + counts["WAIVED"]),
        errors="0",
    )
    for each in verdict.slices:
        case = ElementTree.SubElement(suite, "testcase", classname=f"potstill.{verdict.suite}", name=_xml(each.slice))
        if each.verdict != "PASS":
            kind = "failure" if each.verdict == "FAIL" else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(f"{each.verdict}: {each.why}"))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Text without the control characters that XML does not allow."""
    return escaped(text, len(text))


def markdown(verdict: ReleaseVerdict) -> str:
    """A table of the slices, and the items that changed with both answers."""
    lines = [
        f"### {verdict.verdict}: {_cell(verdict.candidate.name)} on {verdict.suite}, against release {verdict.against}",
        "",
        f"{verdict.items:,} items compared, {verdict.new_items:,} new ones not judged yet.",
        "",
        "| slice | verdict | before | now | broke | fixed | drop, points | why |",
        "|---|---|--:|--:|--:|--:|--:|---|",
        *(_row(each) for each in verdict.slices),
    ]
    for title, found in (
        ("Broke", [each for each in verdict.flips if each.broken]),
        ("Fixed", [each for each in verdict.flips if not each.broken]),
    ):
        lines += _details(title, found)
    return "\n".join(lines) + "\n"


def _row(each: SliceVerdict) -> str:
    cells = [_cell(each.slice), f"**{each.verdict}**"]
    if each.items is None or each.drop is None:
        cells += [""] * 5
    else:
        cells += [f"{each.before:,} of {each.items:,}", f"{each.after:,}", f"{each.broken:,}", f"{each.fixed:,}"]
        cells.append(format_points(each.drop))
    return f"| {' | '.join([*cells, _cell(each.why)])} |"


def _details(title: str, found: Sequence[Flip]) -> list[str]:
    if not found:
        return []
    lines = ["", f"<details><summary>{title}: {len(found):,}</summary>", ""]
    lines += ["| item | prompt | right | before | now |", "|---|---|---|---|---|"]
    for flip in found[:_SHOWN]:
        cells = (flip.item, flip.prompt, flip.expected, flip.before, flip.after)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    more = [f"... and {len(found) - _SHOWN:,} more"] if len(found) > _SHOWN else []
    return [*lines, "", *more, "</details>"]


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, and nothing that Markdown or HTML would obey."""
    plain = printable(text, _LONG).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]" else c for c in plain)
