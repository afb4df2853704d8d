"""Whether a model runs on devices, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from potstill.apps.plan.fit import FitReport
from potstill.cli.render.tables import aligned
from potstill.components.hardware.fit import FITS, NO_FIT, OFFLOAD
from potstill.core.format import format_count, format_large, format_size, format_speed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["render_fits"]

_STYLES = {FITS: "bold green", OFFLOAD: "bold yellow", NO_FIT: "bold red"}


def render_fits(fits: Sequence[FitReport]) -> RenderableType:
    """One report in full; several as a table."""
    return _one(fits[0]) if len(fits) == 1 else _table(fits)


def _headline(one: FitReport) -> str:
    experts = f", {one.experts_used} of {one.experts} experts per token" if one.experts else ""
    parameters, layers = format_large(one.parameters), format_count(one.layers, "layer")
    return f"{one.model}: {one.architecture}, {parameters} parameters, {layers}{experts}"


def _serving(one: FitReport) -> str:
    several = f", {one.parallel:,} conversations" if one.parallel > 1 else ""
    return f"{format_count(one.context, 'token')}, {one.kv_type}{several}"


def _rows(one: FitReport) -> list[tuple[str, str, str]]:
    """Name, figure and note of each line."""
    gpu_context = "" if one.backend in ("x86", "arm") else ", GPU context"
    rows = [
        ("weights", format_size(one.file_bytes), f"{one.quantization}, {one.bits_per_weight:.3f} bits per weight"),
        ("KV cache", format_size(one.kv_bytes), _serving(one)),
        ("compute buffer", format_size(one.compute_bytes), ""),
        ("overhead", format_size(one.overhead_bytes), f"process, vocabulary{gpu_context}"),
        ("needed", format_size(one.needed_bytes), f"of {format_size(one.usable_bytes)} for a model"),
    ]
    if one.copied_bytes:
        rows.append(("in use", format_size(one.total_bytes), "with copies of reordered weights"))
    if one.load_seconds is not None:
        rows += [
            ("decoding", format_speed(*one.decode_tokens_per_s), f"tokens/s, limited by {one.bound}"),
            ("prompt", format_speed(*one.prefill_tokens_per_s), f"tokens/s, limited by {one.prefill_bound}"),
            ("loading", f"{one.load_seconds:,.1f} s", "from the drive, the first time"),
        ]
    alone = one.max_context_without_offload
    rows.append(
        (
            "longest context",
            f"{one.max_context:,}",
            "tokens" + ("" if one.max_context == alone else f", {alone:,} without offload"),
        )
    )
    if one.host:
        but = f", without the experts of {one.expert_layers_on_host}" if one.expert_layers_on_host else ""
        rows += [
            ("offload", f"{one.layers_on_device}", f"of {one.layers} layers on the GPU{but}"),
            ("on the host", format_size(one.host_bytes), one.host),
        ]
    elif one.host_bytes:
        rows.append(("on the host", format_size(one.host_bytes), "process, file header, untied embedding"))
    return rows


def _one(one: FitReport) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for row in _rows(one):
        table.add_row(*row)
    parts: list[RenderableType] = [Text(_headline(one), style="bold"), table, ""]
    parts.append(Text(f"{one.device}: ").append(one.verdict, style=_STYLES[one.verdict]))
    if one.advice:
        whole = "would fit" if one.verdict != OFFLOAD else "would fit without offload"
        parts.append(Text(f"{whole} with " + "; or ".join(one.advice) + "."))
    return Group(*parts, *_warnings(one))


def _warnings(one: FitReport) -> list[Text]:
    from rich.text import Text

    return [Text(f"Warning: {warning}.", style="bold yellow") for warning in one.warnings]


def _table(fits: Sequence[FitReport]) -> RenderableType:
    """Several reports, device by device."""
    from rich.console import Group
    from rich.text import Text

    cells = [("type", "weights", "needed", "tokens/s", "longest", "")]
    for one in fits:
        rates = format_speed(*one.decode_tokens_per_s, "-") if one.load_seconds is not None else "-"
        sizes = format_size(one.file_bytes), format_size(one.needed_bytes)
        cells.append((one.quantization or "mixed", *sizes, rates, f"{one.max_context:,}", ""))
    head, *lines = aligned([(f"  {kind}", *rest) for kind, *rest in cells])
    parts = [Text(_headline(fits[0]), style="bold"), Text(f"for a context of {_serving(fits[0])}")]
    for name, group in groupby(zip(fits, lines, strict=True), key=lambda pair: pair[0].device):
        reports = list(group)
        usable = format_size(reports[0][0].usable_bytes)
        parts += [Text(), Text(f"{name}: {usable} for a model", style="bold"), Text(f"{head}  verdict")]
        parts += [Text(f"{line}  ").append(one.verdict, style=_STYLES[one.verdict]) for one, line in reports]
    legend = Text("needed: memory on the device; longest: longest context, in tokens")
    return Group(*parts, Text(), legend, *_warnings(fits[0]))
