"""Whether a model runs on a device: memory, the split over a GPU and its host, the longest context, and advice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from potstill.components.hardware.devices import Device
from potstill.components.hardware.memory import Memory, indivisible_head, kv_bytes, memory, require_kv_type
from potstill.components.hardware.speed import Placement, Speed, speed
from potstill.components.models.gguf_types import usual_quantization
from potstill.components.models.spec import ModelSpec, block_of
from potstill.core.format import format_size

__all__ = ["FITS", "NO_FIT", "OFFLOAD", "Fit", "FitVerdict", "Serving", "Split", "device_memory", "fit", "max_context"]

FitVerdict = Literal["fits", "fits with offload", "does not fit"]
FITS: FitVerdict = "fits"
OFFLOAD: FitVerdict = "fits with offload"
NO_FIT: FitVerdict = "does not fit"
_LONGEST = 1 << 20
_STEP = 256
_MARGIN = 2**30
"""Bytes that llama.cpp leaves free on a GPU where it splits a model (--fit-target)."""
_SMALLER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class Serving:
    """How a model is served: tokens of one conversation, type of the KV cache, conversations at once."""

    context: int = 4096
    kv_type: str = "f16"
    parallel: int = 1


@dataclass(frozen=True)
class Split:
    """A model over a discrete GPU and its host.

    on_gpu       names of the tensors on the GPU; the host reads the others
    layers       blocks whose attention and cache are on the GPU: the last ones, as with --n-gpu-layers
    experts      blocks among these whose experts stay on the host: the first ones, as with --n-cpu-moe
    cache        share of the KV cache that is on the GPU
    host_bytes   what the host's memory must hold
    """

    on_gpu: frozenset[str]
    layers: int
    experts: int
    cache: float
    host_bytes: int

    def placements(self, spec: ModelSpec, gpu: Device, host: Device) -> list[Placement]:
        """For `speed`; the host comes first, because it has the output matrix or the experts."""
        rest = frozenset(spec.tensors) - self.on_gpu
        return [Placement(host, 1 - self.cache, rest), Placement(gpu, self.cache, self.on_gpu)]


@dataclass(frozen=True)
class Fit:
    """The answer for one model, quantization and device.

    host          the host that holds a part of the model, where it fits with offload
    split         which part is on the GPU, where it fits with offload
    max_context   longest context with which it fits in any way; `max_context_without_offload`: on the device alone
    speed         None where it does not fit
    advice        what would make it fit, or fit without offload
    """

    spec: ModelSpec
    device: Device
    host: Device | None
    serving: Serving
    memory: Memory
    verdict: FitVerdict
    split: Split | None
    max_context: int
    max_context_without_offload: int
    speed: Speed | None
    advice: tuple[str, ...]

    @property
    def layers_on_device(self) -> int:
        """Blocks on the device: all where it fits, none where it does not."""
        return self.split.layers if self.split else self.spec.layers if self.verdict == FITS else 0

    @property
    def host_bytes(self) -> int:
        """What the host's memory must hold besides what the GPU holds."""
        return self.split.host_bytes if self.split else self.memory.on_host


def device_memory(spec: ModelSpec, device: Device, serving: Serving) -> Memory:
    """What a model with types holds on a device."""
    return memory(
        spec, serving.context, kv_type=serving.kv_type, parallel=serving.parallel, backend=device.backend,
        discrete=device.kind == "gpu",
    )  # fmt: skip


def _fits(spec: ModelSpec, device: Device, serving: Serving) -> bool:
    return device_memory(spec, device, serving).needed <= device.usable_bytes


def _splits(spec: ModelSpec, gpu: Device, serving: Serving) -> Iterator[Split]:
    """As many whole blocks as the GPU has room for; and, for a mixture of experts, all but the first blocks' experts.

    Whether the host has room for the rest is not checked.
    """
    held, sizes, layers = device_memory(spec, gpu, serving), spec.tensor_bytes(), spec.layers
    cache = [_layer_cache(spec, layer, serving) for layer in range(layers)]
    run = spec.run_tensors
    movable = {name for name in run if spec.tied or name != "token_embd.weight"}
    # besides weights and cache: the compute buffer, the GPU's context, and llama.cpp's margin
    room = gpu.usable_bytes - (held.needed - held.kv - sum(sizes[name] for name in movable)) - _MARGIN

    def copied(names: Iterable[str]) -> int:
        """The GPU multiplies a prompt's tokens by a matrix of the host in a copy of it, one at a time."""
        return max((sizes[name] for name in names), default=0)

    def split(on_gpu: set[str], blocks: int, experts: int) -> Split:
        cached = sum(cache[layers - blocks :])
        rest = held.total - held.copies - sum(sizes[name] for name in on_gpu) - cached
        return Split(frozenset(on_gpu), blocks, experts, cached / max(1, sum(cache)), rest)

    def most(costs: list[int], left: int) -> int:
        """How many of the last ones there is room for; llama.cpp moves those first."""
        count = 0
        while count < len(costs) and left >= costs[-1 - count]:
            left -= costs[-1 - count]
            count += 1
        return count

    blocks = list(cache)
    experts = [0] * layers
    for name in run:
        if block_of(name) >= 0:
            blocks[block_of(name)] += sizes[name]
            experts[block_of(name)] += sizes[name] if "_exps." in name else 0
    if count := most(blocks, room - copied(movable)):
        yield split({name for name in run if block_of(name) >= layers - count}, count, 0)
    routed = {name for name in movable if "_exps." in name}
    left = room - copied(routed) - sum(cache) - sum(sizes[name] for name in movable - routed)
    if spec.experts and left >= 0:
        kept = layers - most(experts, left)
        yield split({name for name in movable if name not in routed or block_of(name) >= kept}, layers, kept)


def _layer_cache(spec: ModelSpec, layer: int, serving: Serving) -> int:
    """KV cache of one block."""
    one = replace(spec, attention=spec.attention[layer : layer + 1])
    return kv_bytes(one, serving.context, serving.kv_type, serving.parallel)


def _best_split(spec: ModelSpec, gpu: Device, host: Device | None, serving: Serving) -> tuple[Split, Speed] | None:
    """The fastest split that both have room for."""
    if host is None or gpu.kind != "gpu":
        return None
    found = [
        (split, speed(spec, split.placements(spec, gpu, host), serving.context, serving.kv_type))
        for split in _splits(spec, gpu, serving)
        if split.host_bytes <= host.usable_bytes
    ]
    return max(found, key=lambda one: one[1].decode, default=None)


def _fits_with_offload(spec: ModelSpec, gpu: Device, host: Device | None, serving: Serving) -> bool:
    if host is None or gpu.kind != "gpu":
        return False
    return any(split.host_bytes <= host.usable_bytes for split in _splits(spec, gpu, serving))


def max_context(spec: ModelSpec, device: Device, serving: Serving, host: Device | None = None) -> int:
    """Longest context with which a model fits: a multiple of 256, or the model's own maximum; 0 for none.

    Args:
        spec: the model, with types.
        device: the device.
        serving: its context is ignored.
        host: allows offload to it, where the device is a discrete GPU.
    """
    most = spec.context or _LONGEST
    low, high = 0, -(-most // _STEP)
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(serving, context=min(middle * _STEP, most))
        if _fits(spec, device, tried) or _fits_with_offload(spec, device, host, tried):
            low = middle
        else:
            high = middle - 1
    return min(low * _STEP, most)


def fit(model: ModelSpec, quantization: str, device: Device, serving: Serving, host: Device | None = None) -> Fit:
    """Whether one model in one quantization runs on one device.

    Args:
        model: an existing file's own types are kept, whatever the quantization.
        quantization: for a model without types.
        device: the device.
        serving: how the model is served.
        host: machine whose memory takes what a discrete GPU has no room for.

    Raises:
        KeyError: the quantization or the KV type is not known.
        UsageError: see `require_kv_type`.
    """
    require_kv_type(model, serving.kv_type)
    spec = model.quantized(quantization)
    whole = _fits(spec, device, serving)
    best = None if whole else _best_split(spec, device, host, serving)
    alone = max_context(spec, device, serving)
    rate = best[1] if best else None
    if whole:
        rate = speed(spec, [Placement(device, 1.0)], serving.context, serving.kv_type)
    return Fit(
        spec=spec,
        device=device,
        host=host if best else None,
        serving=serving,
        memory=device_memory(spec, device, serving),
        verdict=FITS if whole else OFFLOAD if best else NO_FIT,
        split=best[0] if best else None,
        max_context=max(alone, max_context(spec, device, serving, host)),
        max_context_without_offload=alone,
        speed=rate,
        advice=() if whole else tuple(_advice(model, quantization, device, serving, host)),
    )


def _advice(model: ModelSpec, quantization: str, device: Device, serving: Serving, host: Device | None) -> list[str]:
    """What would make the model fit on the device, the smallest change first; offload only if nothing else does."""
    spec = model.quantized(quantization)
    out = []
    narrow = replace(serving, kv_type="q8_0")
    narrower = serving.kv_type not in ("q8_0", "q4_0") and indivisible_head(model, "q8_0") is None
    alone = narrower and _fits(spec, device, narrow)
    if alone:
        out.append("a KV cache in q8_0 (--kv-type q8_0)")
    shorter = max_context(spec, device, serving)
    if shorter:
        out.append(f"a context of {shorter:,} tokens (--context {shorter})")
    smaller = [] if model.types else [q for q in _SMALLER if model.quantized(q).weight_bytes < spec.weight_bytes]
    usual = usual_quantization(model.architecture)
    if not model.types and usual not in (*_SMALLER, quantization):
        smaller.insert(0, usual)
    ways = [(q, serving) for q in smaller] + [(q, narrow) for q in smaller if narrower and not alone]
    found = next(((q, changed) for q, changed in ways if _fits(model.quantized(q), device, changed)), None)
    if found:
        out.append(_smaller_weights(*found, serving))
    if not out and not _fits_with_offload(spec, device, host, serving):
        offloads = (way for way in ways if _fits_with_offload(model.quantized(way[0]), device, host, way[1]))
        if found := next(offloads, None):
            out.append(f"{_smaller_weights(*found, serving)} and offload")
    held = device_memory(spec, device, serving)
    missing = format_size(held.needed - device.usable_bytes)
    out.append(f"{missing} more memory, {format_size(held.needed)} in total free for the model")
    return out


def _smaller_weights(quantization: str, changed: Serving, serving: Serving) -> str:
    """Advice for a smaller quantization, and for the KV cache's type where that changes too."""
    if changed == serving:
        return f"{quantization} weights (--quantization {quantization})"
    return f"{quantization} weights and a KV cache in q8_0 (--quantization {quantization} --kv-type q8_0)"
