"""What a run prints: stages as they end, and the verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from potstill.core.environment import is_first_process
from potstill.core.recipe.recipe import AnyRecipe
from potstill.core.steps import StepResult

if TYPE_CHECKING:
    from rich.console import RenderableType

    from potstill.components.hardware.fit import Fit
    from potstill.pipeline.run import RunResult

__all__ = [
    "announce_run",
    "print_choice",
    "print_devices",
    "print_fits",
    "print_licences",
    "print_plan",
    "print_stage",
    "print_step",
    "print_sweep",
    "print_verdict",
    "run_metrics",
]

_STYLES = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
_LOG_WIDTH = 110
_err = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not is_first_process())


def _console() -> Console:
    out = Console(highlight=False, soft_wrap=True)
    if not out.is_terminal:  # a log file has no width to wrap to
        out.width = _LOG_WIDTH
    return out


def announce_run(recipe: AnyRecipe, folder: Path) -> None:
    """One line: which recipe, where its run is kept."""
    _err.print(f"[bold]{recipe.name}[/bold] in {folder}/")


def print_step(step: StepResult) -> None:
    """One line a stage, as it ends."""
    _err.print(f"  {step.name:<10} {'cached' if step.cached else 'done':<7} {step.seconds:>8.1f} s   {step.dir.name}/")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if unit in ("rate", "ratio") else f"{value:.4g} {unit}".rstrip()


def _interval(gate: dict[str, Any]) -> str:
    if gate["low"] is None and gate["high"] is None:
        return ""
    return f"{_number(gate['low'], gate['unit'])} .. {_number(gate['high'], gate['unit'])}"


def verdict_table(gates: list[dict[str, Any]]) -> Table:
    """Gates as a table: each with its number, interval and threshold."""
    table = Table(title=None, header_style="bold", box=None, pad_edge=False)
    for column, justify in (
        ("gate", "left"),
        ("value", "right"),
        ("interval", "right"),
        ("threshold", "right"),
        ("verdict", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for gate in gates:
        verdict = Text(gate["verdict"], style=_STYLES[gate["verdict"]])
        table.add_row(
            gate["name"],
            _number(gate["value"], gate["unit"]),
            _interval(gate),
            _number(gate["threshold"], gate["unit"]),
            verdict,
        )
    return table


def print_verdict(gate_folder: Path, package: Path, page: Path | None) -> None:
    """The verdict table, what undecided and failed gates say, notes, and where package and page are."""
    out = _console()
    found = json.loads((gate_folder / "verdict.json").read_text())
    out.print()
    out.print(verdict_table(found["gates"]))
    out.print()
    for gate in found["gates"]:
        if gate["verdict"] != "PASS" and gate["detail"]:
            out.print(f"{gate['name']}: {gate['detail']}")
    for note in found["notes"]:
        out.print(note)
    out.print(Text(f"verdict  {found['verdict']}", style=f"bold {_STYLES[found['verdict']]}"))
    out.print(f"package  {package}/")
    if page is not None:
        out.print(f"report   {page}")


def _rate(model: dict[str, Any] | None) -> float | None:
    return model["exact"]["rate"] if model and model["exact"] else None


def run_metrics(evaluated: Path, trained: Path) -> dict[str, Any]:
    """The numbers `potstill run --json` prints; null where a run has none."""
    metrics = json.loads((evaluated / "metrics.json").read_text())
    if "gguf" not in metrics["models"]:
        return _classifier_metrics(metrics)
    trained_summary = json.loads((trained / "summary.json").read_text())
    models, runtime = metrics["models"], metrics["runtime"]
    teacher, shipped = _rate(models["teacher"]), _rate(models["gguf"])
    fidelity = models["gguf"]["fidelity"] or {}
    return {
        "teacher_exact": teacher,
        "student_exact": shipped,
        "control_exact": _rate(models["control"]),
        "retention": shipped / teacher if shipped is not None and teacher else None,
        "gguf_bytes": models["gguf"]["bytes"],
        "params_teacher": models["teacher"]["params"],
        "params_student": trained_summary["params_student"],
        "decode_tokens_per_s": runtime["decode_tokens_per_s"]["median"],
        "ttft_ms": runtime["ttft_ms"]["median"],
        "peak_rss_mb": runtime["peak_rss_mb"],
        "kl_mean": fidelity.get("kl_mean"),
        "top1_agreement": fidelity.get("top1_agreement"),
    }


def _classifier_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """`run_metrics` of a classifier: exact is accuracy."""
    models, speed = metrics["models"], metrics["speed"]
    teacher, student = models["teacher"], models["student"]
    return {
        "teacher_exact": _rate(teacher),
        "student_exact": _rate(student),
        "control_exact": _rate(models.get("control")),
        "retention": student["exact"]["k"] / teacher["exact"]["k"] if teacher["exact"]["k"] else None,
        "params_teacher": teacher["params"],
        "params_student": student["params"],
        "student_ms": speed["student_ms"]["median"],
        "speedup": speed["speedup"]["median"],
        **student["fidelity"],
    }


def print_sweep(rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each variant: what was changed, the verdict, what was measured."""
    out = _console()
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in (*rows[0]["changes"], "exact", "retention", "KL to teacher", "verdict"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    for row in rows:
        metrics, verdict = row["metrics"], row["verdict"]
        cells = [
            _number(metrics["student_exact"], "rate"), _number(metrics["retention"], "ratio"),
            _number(metrics["kl_mean"], "nats"),
        ]  # fmt: skip
        table.add_row(*row["changes"].values(), *cells, Text(verdict, style=_STYLES[verdict]))
    out.print()
    out.print(table)


def print_stage(stage: str, result: RunResult) -> None:
    """What a single stage has to say on the terminal, beside its directory."""
    out = _console()
    if stage not in result.steps:
        out.print(f"this recipe has no {stage} stage")
        return
    folder = result.folder(stage)
    if stage == "check":
        from potstill.cli.render.plan import render_check
        from potstill.stages.check.classifier import render_classifier_check

        found = json.loads((folder / "check.json").read_text())
        out.print(render_classifier_check(found) if found.get("task") == "classify" else render_check(found))
    elif stage in ("gate", "package", "report"):
        page = result.page("report.html")
        print_verdict(
            result.folder("gate"),
            result.steps["package"].dir / "package" if "package" in result.steps else folder,
            page if page.is_file() else None,
        )
    else:
        out.print(str(folder))


def _print_page(page: RenderableType) -> None:
    """Sentences are wrapped at words where a width is known; in a pipe each stays one line, to be searched."""
    out = _console()
    known = out.is_terminal
    if not known and "COLUMNS" in os.environ:
        known, out.width = True, Console().width
    out.print(page, soft_wrap=not known)


def print_plan(planned: dict[str, Any]) -> None:
    """What the planned student needs and costs, and whether it may ship."""
    from potstill.apps.plan.budget import render_plan

    _print_page(render_plan(planned))


def print_licences(verdict: dict[str, Any]) -> None:
    """Whether the student may ship, why, and what whoever ships it must do."""
    from potstill.components.licences.licences import render_licences

    _print_page(render_licences(verdict))


def print_choice(found: dict[str, Any]) -> None:
    """Students that a device can run."""
    from potstill.cli.render.plan import render_choice

    _print_page(render_choice(found))


def print_fits(fits: Sequence[Fit]) -> None:
    """What was found for a model on its devices."""
    from potstill.apps.plan.answer import render

    _print_page(render(fits))


def print_devices() -> None:
    """The devices that are known."""
    from potstill.apps.plan.answer import render_devices

    _print_page(render_devices())
