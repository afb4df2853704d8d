"""What a check found, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from potstill.core.artifacts.check import CheckResult, ClassifierCheck, ModelSummary, Quantiles, ShownRow
from potstill.core.format import format_size
from potstill.core.words import escaped

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["render_check", "render_classifier_check"]

_SHOWN = 600  # characters shown of each end of a text


def render_check(found: CheckResult) -> RenderableType:
    """Tables of rows, models and needs, and the warnings."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_rows(found), "", _models(found), "", _needs(found)]
    if found.warnings:
        parts += ["", Text("warnings", style="bold yellow")]
        parts += [Text(f"- {warning}") for warning in found.warnings]
    proven = (
        f"In all {sum(found.rows.values()):,} rows, the answer can be separated from the prompt, and the end of each "
        "finished answer is supervised."
    )
    tried = (
        f" llama.cpp makes the same tokens and prompts from {found.trial.rows:,} different rows as training does."
        if found.trial
        else ""
    )
    if found.shown:
        parts += ["", _shown(found.shown)]
    return Group(*parts, "", Text(proven + tried))


def render_classifier_check(found: ClassifierCheck) -> str:
    """Classes, rows and warnings."""
    lines = [f"{found.classes} classes"]
    for name, count in found.rows.items():
        tokens = found.tokens[name]
        lines.append(f"{name}: {count:,} rows of {tokens.median:.0f} tokens (median), {tokens.max:.0f} (longest)")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in found.warnings)])


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


def _shown(row: ShownRow) -> Text:
    """A row's text, with two marks around what is learnt, so that it is clear without colours too."""
    from rich.text import Text

    answer = "" if row.own_answer else ", with the word OK as its answer"
    out = Text(f"{row.where} as the student reads it{answer}: ")
    out.append(f"{row.tokens:,} tokens, of which the {row.learnt_tokens:,} between >>> and <<< are learnt\n")
    at = 0
    for start, end in row.learnt:
        out.append(_middle_cut(row.text[at:start]), style="dim")
        out.append(">>>", style="bold").append(_middle_cut(row.text[start:end]), style="bold green")
        out.append("<<<", style="bold")
        at = end
    return out


def _middle_cut(text: str) -> str:
    """A text whose middle is left out where it is long."""
    left_out = len(text) - 2 * _SHOWN
    cut = text if left_out <= 0 else f"{text[:_SHOWN]}[... {left_out:,} characters ...]{text[-_SHOWN:]}"
    return escaped(cut, len(cut))  # rich drops some control characters, which would hide them


def _vocabulary(model: ModelSummary) -> str:
    padding = model.padded_vocab - model.vocab
    return f"{model.vocab:,}" + (f" + {padding:,} padding" if padding else "")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]


def _needs(found: CheckResult) -> Table:
    table = _table(("need", "of what", "bytes", "limit"), ("need", "of what"))
    file, served, memory = found.file, found.served_memory, found.memory
    table.add_row(
        "file",
        f"{file.quantization}, {file.bits_per_weight:.2f} bits per weight",
        _size(file.bytes),
        _size(file.limit_bytes),
    )
    context = f"context of {served.context:,}, one conversation"
    table.add_row("memory in use", context, _size(served.bytes), _size(served.limit_bytes))
    table.add_row("  of it KV cache", "16 bits", _size(served.kv_bytes), "")
    table.add_row("disk for the run", "at most, under the runs folder", _size(found.disk.needed), "")
    table.add_row("memory for the run", f"stage {memory.stage}, estimated", _size(memory.needed), "")
    return table


def _size(nbytes: int | None) -> str:
    return "-" if nbytes is None else format_size(nbytes)
