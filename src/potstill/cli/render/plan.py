"""What a check and a search found, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from potstill.apps.plan.answer import aligned
from potstill.core.format import format_count, format_duration, format_size, format_speed
from potstill.stages.check.checks import CheckResult, ModelSummary, Quantiles

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["render_check", "render_choice"]


def render_check(result: CheckResult | Mapping[str, Any]) -> RenderableType:
    """Tables of rows, models and needs, and the warnings.

    Args:
        result: of `check_recipe`, or what is in check.json.
    """
    from rich.console import Group
    from rich.text import Text

    found = result if isinstance(result, CheckResult) else CheckResult.model_validate(result)
    parts: list[RenderableType] = [_rows(found), "", _models(found), "", _needs(found)]
    if found.warnings:
        parts += ["", Text("warnings", style="bold yellow")]
        parts += [Text(f"- {warning}") for warning in found.warnings]
    total = sum(found.rows.values())
    proven = f"In all {total:,} rows prompt and answer are apart, and the end of each finished answer is supervised."
    return Group(*parts, "", Text(proven))


def _table(columns: Iterable[str], left: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def _rows(found: CheckResult) -> Table:
    table = _table(("split", "rows", "tokens of", "min", "median", "p95", "max"), ("split", "tokens of"))
    for split, count in found.rows.items():
        table.add_row(split, f"{count:,}", "prompt", *_quantiles(found.prompt_tokens[split]))
        supervised = found.supervised_tokens.get(split)
        if supervised:
            some = "" if supervised.rows == count else f"{supervised.rows:,}"
            table.add_row("", some, "answer", *_quantiles(supervised))
    return table


def _quantiles(values: Quantiles) -> list[str]:
    return [f"{value:,.0f}" for value in (values.min, values.median, values.p95, values.max)]


def _models(found: CheckResult) -> Table:
    table = _table(("model", "name", "kind", "parameters", "layers", "vocabulary"), ("model", "name", "kind"))
    for role, model in (("teacher", found.teacher), ("student", found.student)):
        if model is None:
            table.add_row(role, "behind an endpoint", "", "-", "-", "-")
            continue
        table.add_row(
            role,
            _short(model.name, 26),
            model.architecture,
            "?" if model.parameters is None else f"{model.parameters:,}",
            "?" if model.layers is None else str(model.layers),
            _vocabulary(model),
        )
    return table


def _vocabulary(model: ModelSummary) -> str:
    padding = model.padded_vocab - model.vocab
    return f"{model.vocab:,}" + (f" + {padding:,} padding" if padding else "")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]


def _needs(found: CheckResult) -> Table:
    table = _table(("need", "of what", "bytes", "allowed or there"), ("need", "of what"))
    file, run, memory = found.file, found.run_memory, found.memory
    table.add_row(
        "file",
        f"{file.quantization}, {file.bits_per_weight:.2f} bits a weight",
        _size(file.bytes),
        _size(file.limit_bytes),
    )
    table.add_row("memory in use", f"context of {run.context:,}, one slot", _size(run.bytes), _size(run.limit_bytes))
    table.add_row("  of it KV cache", "16 bits", _size(run.kv_bytes), "")
    table.add_row("disk", "at most, under the runs folder", _size(found.disk.needed), _size(found.disk.free))
    table.add_row("memory here", f"stage {memory.stage}, estimated", _size(memory.needed), _size(memory.physical))
    return table


def _size(nbytes: int | None) -> str:
    return "-" if nbytes is None else format_size(nbytes)


def render_choice(found: Mapping[str, Any]) -> RenderableType:
    """The table of students for 80 columns: a line with the id, and one with numbers. Ranges are what is predicted."""
    from rich.console import Group
    from rich.text import Text

    rows = [found["students"][number - 1] for number in found["shown"]]
    timed = "training" in rows[0]
    head = ("row", "kept", "file", "memory", "tokens/s", "1st token", *(["training", "disk"] * timed))
    table, *lines = aligned([head, *map(_cells, rows)], left=())
    usable = f"{format_size(found['usable_bytes'])} for the model, {format_count(found['context'], 'token')} of context"
    parts = [Text(f"{found['device']}: {usable}", style="bold"), *map(Text, _counted(found)), Text(), Text(table)]
    band = None
    for row, line in zip(rows, lines, strict=True):
        if row["quality_band"] != band:
            band = row["quality_band"]
            parts.append(Text(f"expect {band}:", style="italic"))
        number = f"{row['row']:>{len('row')}}"
        parts += [Text(f"{number}  ").append(row["id"], style="bold"), Text(" " * len(number) + line[len(number) :])]
    return Group(*parts, Text(), *map(Text, _notes(found, timed)))


def _cells(row: Mapping[str, Any]) -> list[str]:
    """A row's numbers."""
    low, high = row["decode_tokens_per_s"]
    sizes = [format_size(row["file_bytes"]), format_size(row["needed_bytes"])]
    first = row["ttft_seconds"][1]
    cells = ["", f"{row['kept']:.0%}", *sizes, format_speed(low, high, "-"), format_duration(first, first, short=True)]
    if training := row.get("training"):
        low, high = (3600 * hours for hours in training["hours"])
        span = format_duration(low, high, short=True) if high >= 60 else "< 1 min"
        cells += [span, format_size(training["disk_bytes"])]
    return cells


def _counted(found: Mapping[str, Any]) -> list[str]:
    """How many students there are, how many are shown, and whether one is needed at all."""
    rows, shown = len(found["students"]), len(found["shown"])
    best = f"{rows:,} of them {'is' if rows == 1 else 'are'} faster than every better one"
    said = [f"{format_count(found['feasible'], 'student')} would do, and {best}."]
    if shown < rows:
        said.append(f"{shown} of these {rows:,} are shown; --json lists them all.")
    if found["teacher_itself"]:
        said.append(f"The teacher itself would do too, in {', '.join(found['teacher_itself'])}.")
    return said


def _notes(found: Mapping[str, Any], timed: bool) -> list[str]:
    prompt = format_count(found["limits"]["prompt"], "token")
    notes = [
        "kept: parameters over the teacher's, embeddings left out of both.",
        "expect: a rule of thumb by these parameters, not a measurement; a cut that keeps",
        "  less than half of them counts for less than a model that was trained so small.",
        f"1st token: at the slow end, after a prompt of {prompt}.",
    ]
    if found["vocabulary"] is not None:
        notes.append(f"The vocabulary is trimmed to about {format_count(found['vocabulary'], 'token')}.")
    if timed:
        notes += [
            f"training: on {found['train_on']}, at the range of rates that it may reach.",
            "--write ID puts a student into the recipe, with its quantization and licence.",
        ]
    return [*notes, *found["notes"]]
