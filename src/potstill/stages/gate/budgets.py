"""Gates on the size, memory and speed of the shipped file.

Size is that of the file. Memory and speed belong to a device: they are judged by what was measured on it, which is this
machine or another one where `potstill bench` ran. For a device where nothing was measured they are predicted, and the
gate is INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from potstill.components.hardware.devices import known_device
from potstill.components.hardware.fit import Fit, Serving, fit
from potstill.components.models.gguf_header import from_gguf
from potstill.core.artifacts.speed import MeasuredSpeed, SpeedTiming
from potstill.core.artifacts.verdict import GateResult
from potstill.core.errors import UsageError
from potstill.core.format import format_interval, format_level, format_value
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Target
from potstill.stages.gate.gates import limit_gate, undecided

__all__ = ["budget_gates", "measured_there"]

_MB = 1e6
_DEVICE_KEYS = ("memory_mb", "ttft_ms", "decode_tokens_per_s")
_NAMES = {"memory_mb": "peak memory", "ttft_ms": "time to first token", "decode_tokens_per_s": "decode speed"}
_UNITS = {"memory_mb": "MB", "ttft_ms": "ms", "decode_tokens_per_s": "tokens/s"}


def measured_there(measured: HashedPath | None, gguf: HashedPath, confidence: float) -> MeasuredSpeed | None:
    """What `potstill bench` measured on the device; None where nothing was, or where it measured another file.

    Raises:
        StepError: the file is not what `potstill bench` writes.
    """
    if measured is None:
        return None
    advice = "run `potstill bench PACKAGE --json FILE` on the device again, and set target.measured to its file"
    found = MeasuredSpeed.read_file(measured.path, advice)
    return found.at(confidence) if found.model_sha256 == gguf.sha256 else None


def budget_gates(
    target: Target, gguf: HashedPath, here: MeasuredSpeed, measured: HashedPath | None
) -> Iterator[GateResult]:
    """A gate for each limit of the target.

    Args:
        target: the limits.
        gguf: the shipped file.
        here: what was measured on this machine.
        measured: the file of `target.measured`.
    """
    if target.file_mb is not None:
        size = gguf.path.stat().st_size / _MB
        yield limit_gate("file size", size, target.file_mb, unit="MB", key="target.file_mb")
    limits = {key: getattr(target, key) for key in _DEVICE_KEYS if getattr(target, key) is not None}
    speed = measured_there(measured, gguf, here.confidence) or (
        here if target.is_this_machine and measured is None else None
    )
    if speed:
        yield from (_measured_gate(key, limit, speed) for key, limit in limits.items())
    elif limits:
        device = "the device" if target.is_this_machine else target.device
        todo = _what_to_do(device, measured)
        found = None if target.is_this_machine else _predicted(target.device, gguf, here.context)
        yield from (
            _predicted_gate(key, limit, device, found, here.median_prompt, todo) for key, limit in limits.items()
        )


# ---- measured ----


def _measured_gate(key: str, limit: float, speed: MeasuredSpeed) -> GateResult:
    """A limit against what was measured on the device."""
    if key == "memory_mb":
        return limit_gate(_NAMES[key], speed.peak_rss_mb, limit, unit="MB", key=f"target.{key}")
    if key == "ttft_ms":
        return _timed_gate(key, speed.ttft_ms, limit, "max", speed)
    return _timed_gate(key, speed.decode_tokens_per_s, limit, "min", speed)


def _timed_gate(
    key: str, timing: SpeedTiming, limit: float, kind: Literal["max", "min"], speed: MeasuredSpeed
) -> GateResult:
    """A limit of time. A busy machine is slower than an idle one, so it cannot show that the limit is missed."""
    name, unit, machine = _NAMES[key], _UNITS[key], speed.machine
    gate = limit_gate(name, timing.median, limit, timing.low, timing.high, unit, kind, key=f"target.{key}")
    level = format_level(speed.confidence)
    detail = (
        f"Measured {format_value(timing.median, unit)} ({level} interval over {len(speed.loads)} loads of the server: "
        f"{format_interval(timing.low, timing.high)}); {kind}imum {limit:g} {unit}."
    )
    if gate.verdict == "PASS":
        return gate.model_copy(update={"detail": detail})
    if machine.busy:
        load = machine.load_before if machine.load_others is None else machine.load_others
        detail += (
            f" The machine was busy: other processes used {load:.1f} of its {machine.cores} cores, so this does not "
            "show how fast the file is. Measure again when the machine is idle: delete the run's directory speed-*, or "
            "run `potstill bench` again."
        )
        return gate.model_copy(update={"verdict": "INCONCLUSIVE", "detail": detail})
    if gate.verdict == "INCONCLUSIVE":
        detail += (
            " The interval includes the limit: the loads differ from each other too much to decide. Use a "
            "smaller student, or a limit that leaves room for such differences."
        )
    return gate.model_copy(update={"detail": detail})


# ---- predicted ----


def _predicted(device: str, gguf: HashedPath, context: int) -> Fit | str:
    """What llama.cpp will need on a device of the list, or why that is not known."""
    known = known_device(device)
    if known is None:
        return f"Nothing is predicted for {device}, which is not in the list of `potstill devices`."
    try:
        return fit(from_gguf(gguf.path), "", known, Serving(context))
    except UsageError as error:
        return f"Nothing is predicted: {error}"


def _predicted_gate(key: str, limit: float, device: str, found: Fit | str | None, prompt: int, todo: str) -> GateResult:
    """A limit of memory or speed on a device where nothing was measured: always INCONCLUSIVE."""
    gate = undecided(f"target.{key}", _NAMES[key], limit, "nothing was measured on the device")
    gate = gate.model_copy(update={"unit": _UNITS[key]})
    bound = f"{'minimum' if key == 'decode_tokens_per_s' else 'maximum'} {limit:g} {_UNITS[key]}"
    if not isinstance(found, Fit):
        return gate.model_copy(update={"detail": " ".join(part for part in (found, todo) if part)})
    if key != "memory_mb" and found.speed is None:
        needed, room = found.memory.needed / _MB, found.device.usable_bytes / _MB
        detail = (
            f"Predicted for {device}: the file needs {needed:,.0f} MB, and the device has {room:,.0f} MB; {bound}. "
            f"{todo}"
        )
        return gate.model_copy(update={"detail": detail})
    low, high = _range(key, found, prompt)
    after = f" after a prompt of {prompt:,} tokens" if key == "ttft_ms" else ""
    detail = f"Predicted for {device}: {format_interval(low, high, _UNITS[key])}{after}; {bound}. {todo}"
    return gate.model_copy(update={"low": low, "high": high, "detail": detail})


def _range(key: str, found: Fit, prompt: int) -> tuple[float, float]:
    """Both ends of a prediction, in the unit of the limit."""
    if key == "memory_mb":
        return found.memory.needed / _MB, found.memory.total / _MB
    assert found.speed is not None
    if key == "decode_tokens_per_s":
        return found.speed.decode
    first, last = found.speed.first_token(prompt)
    return 1000 * first, 1000 * last


def _what_to_do(device: str, measured: HashedPath | None) -> str:
    """How the gate can be decided."""
    found = f"target.measured: {measured.path.name} measures another GGUF file. " if measured else ""
    return (
        f"{found}The gate is INCONCLUSIVE until this file is measured there: run `potstill bench PACKAGE --json "
        f"FILE` on {device}, and set target.measured to FILE."
    )
