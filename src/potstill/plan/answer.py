"""`potstill plan MODEL`: every asked device and quantization, as JSON or for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from potstill.errors import UsageError
from potstill.gguf_types import QUANTIZATIONS
from potstill.plan.anatomy import Anatomy
from potstill.plan.ask import Ask
from potstill.plan.devices import Device, find_device, load_devices
from potstill.plan.fit import Fit, fit
from potstill.plan.source import load_anatomy

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["answer", "render", "render_devices", "to_json"]

_CONTEXT = 4096


def answer(model: str, ask: Ask, *, quantizations: Sequence[str] = (), host: str = "Desktop DDR5-5600") -> list[Fit]:
    """A `Fit` for every device and quantization.

    Args:
        model: see `load_anatomy`.
        ask: devices, context (4096 where none is asked, or the model's own where that is less), KV cache.
        quantizations: Q4_K_M where none is given; a GGUF file has its own.
        host: device whose memory takes what a card does not.

    Raises:
        UsageError: the model, a device or a quantization is not known.
    """
    anatomy = load_anatomy(model)
    for quantization in quantizations:
        if quantization not in QUANTIZATIONS:
            raise UsageError(f"--quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}.")
    wish, beside = ask.wish(min(_CONTEXT, anatomy.context or _CONTEXT)), find_device(host)
    wanted = [anatomy.quantization or "mixed"] if anatomy.types else quantizations or ["Q4_K_M"]
    return [fit(anatomy, q, device, wish, beside) for device in ask.all_devices() for q in wanted]


def to_json(fits: Sequence[Fit]) -> dict[str, Any]:
    """One plan's own keys; of several {"plans": [...]}."""
    return fits[0].to_json() if len(fits) == 1 else {"plans": [one.to_json() for one in fits]}


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def _rate(rates: tuple[float, float]) -> str:
    digits = 0 if rates[0] >= 20 else 1 if rates[0] >= 1 else 2
    return f"{rates[0]:,.{digits}f} to {rates[1]:,.{digits}f}"


def render(fits: Sequence[Fit]) -> RenderableType:
    """One plan in full; several as a table."""
    return _one(fits[0]) if len(fits) == 1 else _table(fits)


_STYLES = {"fits": "bold green", "fits with offload": "bold yellow", "does not fit": "bold red"}


def _headline(anatomy: Anatomy) -> str:
    experts = f", {anatomy.used} of {anatomy.experts} experts a token" if anatomy.experts else ""
    count = anatomy.parameters
    size = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return f"{anatomy.name}: {anatomy.architecture}, {size} parameters, {anatomy.layers} layers{experts}"


def _one(one: Fit) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    held, device, wish = one.memory, one.device, one.wish
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    bits = f"{one.anatomy.quantization}, {one.anatomy.bits_per_weight:.3f} bits a weight"
    cache = f"{wish.context:,} tokens, {wish.kv_type}"
    cache += f", {wish.parallel} conversations" if wish.parallel > 1 else ""
    table.add_row("weights", _size(held.weights), bits)
    table.add_row("KV cache", _size(held.kv), cache)
    table.add_row("compute buffer", _size(held.compute), "")
    table.add_row("overhead", _size(held.overhead), "process, vocabulary" + (", GPU context" if _gpu(device) else ""))
    table.add_row("needed", _size(held.needed), f"of {_size(device.usable_bytes)} that a model may have there")
    if held.copies:
        table.add_row(
            "in use", _size(held.total), "while memory is free: weights that the CPU re-orders are there twice"
        )
    if one.speed:
        table.add_row("decoding", _rate(one.speed.decode), f"tokens/s, bound by {one.speed.bound}")
        table.add_row("prompt", _rate(one.speed.prefill), "tokens/s")
        table.add_row("loading", f"{one.speed.load_seconds:,.1f} s", "from the drive, the first time")
    table.add_row("longest context", f"{one.max_context:,}", "tokens")
    if one.host:
        where = f"of {one.anatomy.layers} layers on the card, {_size(one.host_bytes)} on {one.host.name}"
        table.add_row("offload", f"{one.layers_on_device}", where)
    parts: list[RenderableType] = [Text(_headline(one.anatomy), style="bold"), table]
    verdict = Text(f"{device.name}: ")
    verdict.append(one.verdict, style=_STYLES[one.verdict])
    parts += ["", verdict]
    if one.advice:
        whole = "would fit" if one.verdict != "fits with offload" else "would fit on the card whole"
        parts.append(Text(f"{whole} with " + "; or ".join(one.advice) + "."))
    return Group(*parts)


def _gpu(device: Device) -> bool:
    return device.backend not in ("x86", "arm")


def _table(fits: Sequence[Fit]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    wish = fits[0].wish
    table = _columns("device", "quantization", "weights", "needed", "usable", "tokens/s", "longest", "verdict")
    for one in fits:
        table.add_row(
            one.device.name,
            one.anatomy.quantization or "",
            _size(one.memory.weights),
            _size(one.memory.needed),
            _size(one.device.usable_bytes),
            _rate(one.speed.decode) if one.speed else "",
            f"{one.max_context:,}",
            Text(one.verdict, style=_STYLES[one.verdict]),
        )
    asked = (
        f"for {wish.context:,} tokens of context in {wish.kv_type}, {wish.parallel} at once; longest: tokens of context"
    )
    return Group(Text(_headline(fits[0].anatomy), style="bold"), table, "", Text(asked))


def _columns(*names: str) -> Table:
    from rich.table import Table

    table = Table(header_style="bold", box=None, pad_edge=False)
    left = ("device", "quantization", "verdict", "kind", "source")
    for name in names:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=name != "source")
    return table


def render_devices() -> RenderableType:
    """Every device of devices.toml."""
    table = _columns("device", "kind", "memory GiB", "usable", "GB/s", "TFLOPS", "source", "entered")
    for device in load_devices():
        table.add_row(
            device.name,
            device.kind,
            f"{device.memory / 2**30:g}",
            f"{device.usable:.0%}",
            f"{device.bandwidth / 1e9:g}",
            f"{device.compute / 1e12:g}",
            device.source,
            device.date,
        )
    return table
