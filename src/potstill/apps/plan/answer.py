"""`potstill plan MODEL`: every asked device and quantization, as JSON or for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from potstill.apps.plan.options import Ask, chosen_quantizations, refuse_context
from potstill.components.hardware.devices import Device, find_device, load_devices
from potstill.components.hardware.fit import Fit, Serving, fit
from potstill.components.models.gguf_types import QUANTIZATIONS
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError
from potstill.core.format import format_count, format_large, format_size, format_speed

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "aligned",
    "answer",
    "devices_json",
    "render",
    "render_devices",
    "to_json",
]

_CONTEXT = 4096
_HOST = "Desktop DDR5-5600"


def answer(model: str, ask: Ask, *, quantizations: Sequence[str] = (), host: str | None = None) -> list[Fit]:
    """A `Fit` for every device and quantization.

    Args:
        model: see `load_spec`.
        ask: devices, context (4096 where none is asked, or the model's own where that is less), KV cache.
        quantizations: Q4_K_M where none is given; a GGUF file has its own. Capitals do not count.
        host: device whose memory takes what a card does not; None for a desktop with DDR5-5600.

    Raises:
        UsageError: the model, a device or a quantization is not known; a quantization is asked of a GGUF file, or a
            host where there is no card; the model was made for a shorter context.
    """
    spec = load_spec(model)
    wanted = chosen_quantizations(quantizations, QUANTIZATIONS)
    if wanted and spec.types:
        raise UsageError(
            f"--quantization {wanted[0]}: {model} is a GGUF file, whose weights are {spec.quantization or 'mixed'}. "
            "Leave the option out, or give the model's config.json."
        )
    serving = ask.serving(min(_CONTEXT, spec.context or _CONTEXT))
    refuse_context(serving.context, spec.context, spec.name)
    devices, beside = ask.all_devices(), find_device(host or _HOST, option="--host")
    if host and not any(device.kind == "gpu" for device in devices):
        raise UsageError(
            f"--host {host}: a host takes what has no room on a card, and {devices[0].name} is none. Leave it out, or "
            "give a card as --device."
        )
    wanted = (spec.quantization or "mixed",) if spec.types else wanted or ("Q4_K_M",)
    return [fit(spec, q, device, serving, beside) for device in devices for q in wanted]


def to_json(fits: Sequence[Fit]) -> dict[str, Any]:
    """One plan's own keys; of several {"plans": [...]}."""
    return fits[0].to_json() if len(fits) == 1 else {"plans": [one.to_json() for one in fits]}


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Rows of cells as lines: columns as wide as their longest cell, so that no number is ever cut.

    Args:
        rows: the first is the head.
        left: columns that begin at the left; the others end at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return lines


def render(fits: Sequence[Fit]) -> RenderableType:
    """One plan in full; several as a table."""
    return _one(fits[0]) if len(fits) == 1 else _table(fits)


_STYLES = {"fits": "bold green", "fits with offload": "bold yellow", "does not fit": "bold red"}


def _headline(spec: ModelSpec) -> str:
    experts = f", {spec.experts_used} of {spec.experts} experts a token" if spec.experts else ""
    layers = format_count(spec.layers, "layer")
    return f"{spec.name}: {spec.architecture}, {format_large(spec.parameters)} parameters, {layers}{experts}"


def _asked(serving: Serving) -> str:
    several = f", {serving.parallel:,} conversations" if serving.parallel > 1 else ""
    return f"{format_count(serving.context, 'token')}, {serving.kv_type}{several}"


def _one(one: Fit) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    held, device = one.memory, one.device
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    bits = f"{one.spec.quantization}, {one.spec.bits_per_weight:.3f} bits a weight"
    table.add_row("weights", format_size(held.weights), bits)
    table.add_row("KV cache", format_size(held.kv), _asked(one.serving))
    table.add_row("compute buffer", format_size(held.compute), "")
    context = ", GPU context" if device.backend not in ("x86", "arm") else ""
    table.add_row("overhead", format_size(held.overhead), f"process, vocabulary{context}")
    table.add_row("needed", format_size(held.needed), f"of {format_size(device.usable_bytes)} for a model there")
    if held.copies:
        table.add_row("in use", format_size(held.total), "with copies of weights that are re-ordered")
    if one.speed:
        table.add_row("decoding", format_speed(*one.speed.decode), f"tokens/s, bound by {one.speed.bound}")
        table.add_row("prompt", format_speed(*one.speed.prefill), f"tokens/s, bound by {one.speed.prefill_bound}")
        table.add_row("loading", f"{one.speed.load_seconds:,.1f} s", "from the drive, the first time")
    whole = "" if one.max_context == one.whole_context else f", {one.whole_context:,} without offload"
    table.add_row("longest context", f"{one.max_context:,}", f"tokens{whole}")
    if one.split and one.host:
        but = f" but for the experts of {one.split.experts}" if one.split.experts else ""
        table.add_row("offload", f"{one.layers_on_device}", f"of {one.spec.layers} layers on the card{but}")
        table.add_row("on the host", format_size(one.host_bytes), one.host.name)
    elif held.elsewhere:
        table.add_row("on the host", format_size(held.elsewhere), "process, file's header, untied embedding")
    parts: list[RenderableType] = [Text(_headline(one.spec), style="bold"), table]
    verdict = Text(f"{device.name}: ")
    verdict.append(one.verdict, style=_STYLES[one.verdict])
    parts += ["", verdict]
    if one.advice:
        whole = "would fit" if one.verdict != "fits with offload" else "would fit on the card whole"
        parts.append(Text(f"{whole} with " + "; or ".join(one.advice) + "."))
    return Group(*parts)


def _table(fits: Sequence[Fit]) -> RenderableType:
    """Several plans, device by device."""
    from rich.console import Group
    from rich.text import Text

    cells = [("type", "weights", "needed", "tokens/s", "longest", "")]
    for one in fits:
        rates = format_speed(*one.speed.decode, "-") if one.speed else "-"
        sizes = format_size(one.memory.weights), format_size(one.memory.needed)
        cells.append((one.spec.quantization or "mixed", *sizes, rates, f"{one.max_context:,}", ""))
    head, *lines = aligned([(f"  {kind}", *rest) for kind, *rest in cells])
    parts = [Text(_headline(fits[0].spec), style="bold"), Text(f"for a context of {_asked(fits[0].serving)}")]
    for name, group in groupby(zip(fits, lines, strict=True), key=lambda pair: pair[0].device.name):
        ours = list(group)
        usable = format_size(ours[0][0].device.usable_bytes)
        parts += [Text(), Text(f"{name}: {usable} for a model", style="bold"), Text(f"{head}  verdict")]
        parts += [Text(f"{line}  ").append(one.verdict, style=_STYLES[one.verdict]) for one, line in ours]
    return Group(*parts, Text(), Text("needed: memory, of what the device has for a model; longest: tokens of context"))


def devices_json() -> dict[str, Any]:
    """Every device of devices.toml with all that is known of it: bytes, bytes/s, operations/s, and their source."""
    rates = ("bandwidth", "compute", "storage")
    return {
        "devices": [
            {
                **asdict(device),
                **{key: round(getattr(device, key)) for key in rates},
                "usable_bytes": device.usable_bytes,
            }
            for device in load_devices()
        ]
    }


def render_devices() -> RenderableType:
    """Every device of devices.toml; where its numbers come from is in `devices_json`."""
    from rich.console import Group
    from rich.text import Text

    rows = [("device", "kind", "GiB", "usable", "GB/s", "TFLOPS", "entered"), *map(_device_cells, load_devices())]
    head, *lines = aligned(rows, left=(0, 1))
    said = (
        "GiB: of memory, and the share of it that a model may have; GB/s: of memory; entered: the month.",
        "Where each number comes from: potstill plan --devices --json (source).",
    )
    return Group(Text(head, style="bold"), *map(Text, lines), Text(), *map(Text, said))


def _device_cells(device: Device) -> tuple[str, ...]:
    numbers = f"{device.memory / 2**30:g}", f"{device.usable:.0%}", f"{device.bandwidth / 1e9:g}"
    return device.name, device.kind, *numbers, f"{device.compute / 1e12:g}", device.date
