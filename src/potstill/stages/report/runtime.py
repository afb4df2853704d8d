"""Size, memory and speed of the shipped file, with its budgets and the teacher's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from potstill.core.artifacts.speed import SpeedTiming
from potstill.core.format import format_large, format_number, format_size
from potstill.core.recipe import Target
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import interval, unbroken

__all__ = ["Measure", "RuntimeSection", "runtime_section"]


@dataclass(frozen=True)
class Measure:
    """A row of the table.

    budget, used, share   the budget, and how much of it is used, as text and as a fraction; None without a budget
    teacher               the teacher's value; None where it was not measured
    """

    name: str
    value: str
    spread: str | None = None
    budget: str | None = None
    used: str | None = None
    share: float = 0.0
    teacher: str | None = None


@dataclass(frozen=True)
class RuntimeSection:
    """The rows, and sentences on where and how they were measured."""

    rows: Sequence[Measure]
    method: str


def runtime_section(facts: Facts) -> RuntimeSection:
    """The measures of the shipped file."""
    run, target = facts.speed, _judged(facts)
    teacher, shipped = facts.metrics.models.teacher, facts.metrics.models.gguf
    ttft, speed = run.ttft_ms, run.decode_tokens_per_s
    rows = []
    if shipped.bytes:
        same = _larger(facts.metrics.models.teacher_as_shipped, shipped.bytes, "size")
        file = Measure(
            "File",
            f"{format_size(shipped.bytes)} as {shipped.format}",
            teacher=f"about {same} as {shipped.format}" if same else None,
        )
        rows.append(_at_most(file, target.file_mb, shipped.bytes / 1e6, "MB"))
    if shipped.params:
        size = _larger(teacher.params, shipped.params, "count")
        rows.append(Measure("Parameters", format_large(shipped.params), teacher=size))
    memory = Measure("Peak memory", f"{format_number(run.peak_rss_mb)} MB")
    first = Measure("Time to first token", f"{format_number(ttft.median)} ms", _spread(ttft))
    decode = Measure("Decode speed", f"{format_number(speed.median)} tokens/s", _spread(speed))
    rows += [
        _at_most(memory, target.memory_mb, run.peak_rss_mb, "MB"),
        Measure("Load", f"{run.load_s:.2f} s"),
        _at_most(first, target.ttft_ms, ttft.median, "ms"),
        _at_least(decode, target.decode_tokens_per_s, speed.median, "tokens/s"),
    ]
    return RuntimeSection(rows, unbroken(f"{_place(facts)}{run.method} The teacher does not run there."))


def _judged(facts: Facts) -> Target:
    """The target, without the limits that these measurements do not judge because the device is another machine."""
    target = facts.inputs.target
    if target.is_this_machine or facts.verdict.device:
        return target
    return target.model_copy(update={"memory_mb": None, "ttft_ms": None, "decode_tokens_per_s": None})


def _place(facts: Facts) -> str:
    """Where it was measured, if the target is not the machine of the run."""
    device = facts.inputs.target.device
    if facts.inputs.target.is_this_machine:
        return ""
    if facts.verdict.device:
        return f"Measured on the device, {device}. "
    return f"The limits are for {device}, and these are the numbers of another machine. "


def _spread(timing: SpeedTiming) -> str:
    tail = f"slowest 5\N{NO-BREAK SPACE}%: {format_number(timing.tail)} ({interval(timing.tail_low, timing.tail_high)})"
    return f"{interval(timing.low, timing.high)}; {tail}"


def _larger(teacher: int | None, shipped: int, kind: str) -> str | None:
    """The teacher's size, and how many times as large it is."""
    if not teacher:
        return None
    text = format_size(teacher) if kind == "size" else format_large(teacher)
    return f"{text} ({teacher / shipped:.3g} times as much)"


def _at_most(measure: Measure, limit: float | None, value: float, unit: str) -> Measure:
    if limit is None:
        return measure
    share = value / limit
    return replace(measure, budget=f"at most {limit:g} {unit}", share=share, used=unbroken(f"{100 * share:.0f} % used"))


def _at_least(measure: Measure, limit: float | None, value: float, unit: str) -> Measure:
    if limit is None:
        return measure
    times = value / limit
    used = f"{times:.3g} times as fast"
    return replace(measure, budget=f"at least {limit:g} {unit}", share=1 / times if times else 1.0, used=used)
