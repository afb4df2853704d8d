"""What a run prints: stages as they end, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from potstill.cli.group import MESSAGE_CHARACTERS
from potstill.cli.render.page import console
from potstill.cli.render.worth import worth_table
from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.environment import is_first_process
from potstill.core.format import format_interval, format_level, format_value
from potstill.core.recipe import AnyRecipe
from potstill.core.steps import StepResult
from potstill.core.words import escaped

if TYPE_CHECKING:
    from potstill.core.artifacts.run import RunReport
    from potstill.pipeline.result import RunResult

__all__ = [
    "announce_run",
    "print_note",
    "print_stage",
    "print_step",
    "print_sweep",
    "print_verdict",
]

_STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
_err = console(err=True)
_err.quiet = not is_first_process()


def announce_run(recipe: AnyRecipe, folder: Path) -> None:
    """One line: which recipe, where its run is kept."""
    _err.print(Text(recipe.name, style="bold"), f"in {folder}/", markup=False)


def print_step(step: StepResult) -> None:
    """One line a stage, as it ends."""
    _err.print(
        f"  {step.name:<10} {'cached' if step.cached else 'done':<7} {step.seconds:>8.1f} s   {step.dir.name}/",
        markup=False,
    )


def verdict_table(gates: Sequence[GateResult], confidence: float) -> Table:
    """Gates as a table: each with its number, its interval of that confidence, and its threshold."""
    table = Table(title=None, header_style="bold", box=None, pad_edge=False)
    for column, justify in (
        ("gate", "left"),
        ("value", "right"),
        (f"{format_level(confidence)} interval", "right"),
        ("threshold", "right"),
        ("verdict", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for gate in gates:
        verdict = Text(gate.verdict, style=_STYLES[gate.verdict])
        value, threshold = format_value(gate.value, gate.unit), format_value(gate.threshold, gate.unit)
        table.add_row(gate.name, value, format_interval(gate.low, gate.high, gate.unit), threshold, verdict)
    return table


def print_note(text: str) -> None:
    """A sentence about what a run found changed on disk."""
    _err.print(f"  {escaped(text, MESSAGE_CHARACTERS)}", style="yellow", markup=False)


def print_verdict(result: RunResult) -> None:
    """The verdict table, details of gates that do not pass, notes, and where package and report are."""
    out = console()
    found = Verdict.read(result.folder("gate"))
    report = result.report()
    out.print()
    if worth := result.worth():
        out.print(worth_table(worth))
        out.print(f"{worth.sentence} {worth.interval_sentence}")
        for sentence in worth.advice:
            out.print(sentence)
        out.print()
    out.print(verdict_table(found.gates, found.confidence))
    out.print()
    for gate in found.gates:
        if gate.verdict != "PASS" and gate.detail:
            out.print(f"{gate.name}: {gate.detail}", markup=False)
    for note in found.notes:
        out.print(note, markup=False)  # it may quote a model
    out.print(Text(f"verdict  {found.verdict}", style=f"bold {_STYLES[found.verdict]}"))
    if report.package:
        out.print(f"package  {report.package}/", markup=False)
    if report.report:
        out.print(f"report   {report.report}", markup=False)


def print_sweep(reports: Sequence[RunReport]) -> None:
    """A line for each variant: what was changed, what was measured, and the verdict."""
    out = console()
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in (*(reports[0].changes or {}), "exact", "retention", "KL to teacher", "verdict"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    for report in reports:
        metrics, verdict = report.metrics, report.verdict or "INCONCLUSIVE"
        assert metrics is not None
        cells = [
            format_value(metrics.student_exact, "rate"), format_value(metrics.retention, "ratio"),
            format_value(metrics.kl_mean, "nats"),
        ]  # fmt: skip
        table.add_row(*(report.changes or {}).values(), *cells, Text(verdict, style=_STYLES[verdict]))
    out.print()
    out.print(table)


def print_stage(stage: str, result: RunResult) -> None:
    """The result of a single stage: its directory, the check's findings, or the verdict."""
    out = console()
    if stage not in result.steps:
        out.print(f"This recipe has no {stage} stage.")
        return
    folder = result.folder(stage)
    if stage == "check":
        from potstill.cli.render.check import render_check, render_classifier_check
        from potstill.core.artifacts.check import ClassifierCheck, read_check

        found = read_check(folder)
        out.print(render_classifier_check(found) if isinstance(found, ClassifierCheck) else render_check(found))
    elif stage in ("gate", "package", "report"):
        print_verdict(result)
    else:
        out.print(str(folder), markup=False)
