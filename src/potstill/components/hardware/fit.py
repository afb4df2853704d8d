"""Whether a model runs on a device: memory against what there is, the split over a card and its host, a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from potstill.components.hardware.devices import Device
from potstill.components.hardware.memory import Memory, kv_bytes, memory, odd_heads, refuse_odd_heads
from potstill.components.hardware.speed import Part, Speed, speed
from potstill.components.models.spec import ModelSpec, block_of
from potstill.core.format import format_size

__all__ = ["FITS", "NO_FIT", "OFFLOAD", "Fit", "Serving", "Split", "device_memory", "fit", "largest_context"]

FITS, OFFLOAD, NO_FIT = "fits", "fits with offload", "does not fit"
_LONGEST = 1 << 20
_STEP = 256
_SMALLER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class Serving:
    """What is asked of a device: tokens of one conversation, type of the KV cache, conversations at once."""

    context: int = 4096
    kv_type: str = "f16"
    parallel: int = 1


@dataclass(frozen=True)
class Split:
    """A model over a card and its host.

    on_card      names of the card's tensors; the others are read by the host
    layers       blocks whose attention and cache are on the card: the last ones, as llama.cpp's --n-gpu-layers has it
    experts      blocks of these whose experts stay on the host: the first ones, as --n-cpu-moe has it
    cache        share of the KV cache that is on the card
    host_bytes   what the host's memory must hold
    """

    on_card: frozenset[str]
    layers: int
    experts: int
    cache: float
    host_bytes: int

    def parts(self, spec: ModelSpec, card: Device, host: Device) -> list[Part]:
        """For `speed`: the host's part first, since it has the output matrix or the experts."""
        rest = frozenset(spec.tensors) - self.on_card
        return [Part(host, 1 - self.cache, rest), Part(card, self.cache, self.on_card)]


@dataclass(frozen=True)
class Fit:
    """The answer for one model, quantization and device.

    split          over card and host, where it fits with offload
    max_context    longest with which it fits in any way; `whole_context` without offload
    speed          None where it does not fit
    advice         sentences: what would make it fit, or fit whole
    """

    spec: ModelSpec
    device: Device
    host: Device | None
    serving: Serving
    memory: Memory
    verdict: str
    split: Split | None
    max_context: int
    whole_context: int
    speed: Speed | None
    advice: tuple[str, ...]

    @property
    def layers_on_device(self) -> int:
        """Blocks on the card; all of them where it fits whole, none where it does not fit."""
        return self.split.layers if self.split else self.spec.layers if self.verdict == FITS else 0

    @property
    def host_bytes(self) -> int:
        """What the host's memory must hold beside the card."""
        return self.split.host_bytes if self.split else self.memory.elsewhere

    def to_json(self) -> dict[str, Any]:
        """The eight keys of every plan, then what explains them."""
        decode = list(self.speed.decode) if self.speed else [0.0, 0.0]
        return {
            "weight_bytes": self.spec.weight_bytes,
            "bits_per_weight": round(self.spec.bits_per_weight, 4),
            "kv_bytes": self.memory.kv,
            "compute_bytes": self.memory.compute,
            "total_bytes": self.memory.total,
            "decode_tokens_per_s": [round(rate, 3) for rate in decode],
            "max_context": self.max_context,
            "verdict": self.verdict,
            "model": self.spec.name,
            "quantization": self.spec.quantization,
            "device": self.device.name,
            "context": self.serving.context,
            "kv_type": self.serving.kv_type,
            "parallel": self.serving.parallel,
            "parameters": self.spec.parameters,
            "file_bytes": self.memory.weights,
            "copied_bytes": self.memory.copies,
            "overhead_bytes": self.memory.overhead,
            "needed_bytes": self.memory.needed,
            "usable_bytes": self.device.usable_bytes,
            "prefill_tokens_per_s": [round(rate, 3) for rate in self.speed.prefill] if self.speed else [0.0, 0.0],
            "bound": self.speed.bound if self.speed else None,
            "prefill_bound": self.speed.prefill_bound if self.speed else None,
            "load_seconds": round(self.speed.load_seconds, 3) if self.speed else None,
            "max_context_without_offload": self.whole_context,
            "layers": self.spec.layers,
            "layers_on_device": self.layers_on_device,
            "expert_layers_on_host": self.split.experts if self.split else 0,
            "host": self.host.name if self.host else None,
            "host_bytes": self.host_bytes,
            "advice": list(self.advice),
        }


def device_memory(spec: ModelSpec, device: Device, serving: Serving) -> Memory:
    """What a model with types holds on a device."""
    return memory(
        spec, serving.context, kv_type=serving.kv_type, parallel=serving.parallel, backend=device.backend,
        card=device.kind == "gpu",
    )  # fmt: skip


def _fits(spec: ModelSpec, device: Device, serving: Serving) -> bool:
    return device_memory(spec, device, serving).needed <= device.usable_bytes


def _splits(spec: ModelSpec, card: Device, serving: Serving) -> Iterator[Split]:
    """Most whole blocks on the card; and of a mixture of experts, all of it but the experts of the first blocks.

    A split that the card has no room for is left out; whether the host has is not looked at.
    """
    held, sizes, layers = device_memory(spec, card, serving), spec.tensor_bytes(), spec.layers
    cache = [_layer_cache(spec, layer, serving) for layer in range(layers)]
    run = spec.run_tensors
    movable = {name for name in run if spec.tied or name != "token_embd.weight"}
    # beside weights and cache: the compute buffer and the GPU's context
    room = card.usable_bytes - (held.needed - held.kv - sum(sizes[name] for name in movable))

    def split(on_card: set[str], blocks: int, experts: int) -> Split:
        ours = sum(cache[layers - blocks :])
        rest = held.total - held.copies - sum(sizes[name] for name in on_card) - ours
        return Split(frozenset(on_card), blocks, experts, ours / max(1, sum(cache)), rest)

    def most(costs: list[int], left: int) -> int:
        """How many of the last ones there is room for: llama.cpp moves those first."""
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
    if count := most(blocks, room):
        yield split({name for name in run if block_of(name) >= layers - count}, count, 0)
    left = room - sum(cache) - sum(sizes[name] for name in movable if "_exps." not in name)
    if spec.experts and left >= 0:
        kept = layers - most(experts, left)
        yield split({name for name in movable if "_exps." not in name or block_of(name) >= kept}, layers, kept)


def _layer_cache(spec: ModelSpec, layer: int, serving: Serving) -> int:
    """KV cache of one block."""
    one = replace(spec, attention=spec.attention[layer : layer + 1])
    return kv_bytes(one, serving.context, serving.kv_type, serving.parallel)


def _best_split(spec: ModelSpec, card: Device, host: Device | None, serving: Serving) -> tuple[Split, Speed] | None:
    """The fastest that both have room for."""
    if host is None or card.kind != "gpu":
        return None
    found = [
        (split, speed(spec, split.parts(spec, card, host), serving.context, serving.kv_type))
        for split in _splits(spec, card, serving)
        if split.host_bytes <= host.usable_bytes
    ]
    return max(found, key=lambda one: one[1].decode, default=None)


def _offloads(spec: ModelSpec, card: Device, host: Device | None, serving: Serving) -> bool:
    if host is None or card.kind != "gpu":
        return False
    return any(split.host_bytes <= host.usable_bytes for split in _splits(spec, card, serving))


def largest_context(spec: ModelSpec, device: Device, serving: Serving, host: Device | None = None) -> int:
    """Most tokens of a conversation with which it fits, a multiple of 256 or what the model was made for; 0 for none.

    Args:
        host: with offload to it, where the device is a card.
    """
    most = spec.context or _LONGEST
    low, high = 0, -(-most // _STEP)
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(serving, context=min(middle * _STEP, most))
        if _fits(spec, device, tried) or _offloads(spec, device, host, tried):
            low = middle
        else:
            high = middle - 1
    return min(low * _STEP, most)


def fit(model: ModelSpec, quantization: str, device: Device, serving: Serving, host: Device | None = None) -> Fit:
    """Everything about one model in one quantization on one device.

    Args:
        model: a file's own types are kept, whatever the quantization.
        host: whose memory takes what a card does not; only for devices of kind gpu.

    Raises:
        KeyError: the quantization or the KV type is not known.
        UsageError: see `refuse_odd_heads`.
    """
    refuse_odd_heads(model, serving.kv_type)
    spec = model.quantized(quantization)
    whole = _fits(spec, device, serving)
    best = None if whole else _best_split(spec, device, host, serving)
    rate = speed(spec, [Part(device, 1.0)], serving.context, serving.kv_type) if whole else best[1] if best else None
    alone = largest_context(spec, device, serving)
    return Fit(
        spec=spec,
        device=device,
        host=host if best else None,
        serving=serving,
        memory=device_memory(spec, device, serving),
        verdict=FITS if whole else OFFLOAD if best else NO_FIT,
        split=best[0] if best else None,
        max_context=max(alone, largest_context(spec, device, serving, host)),
        whole_context=alone,
        speed=rate,
        advice=() if whole else tuple(_advice(model, quantization, device, serving, host)),
    )


def _advice(model: ModelSpec, quantization: str, device: Device, serving: Serving, host: Device | None) -> list[str]:
    """What would make it fit on the device whole, the mildest first; then with offload, where it does not even so."""
    spec = model.quantized(quantization)
    out = []
    narrow = replace(serving, kv_type="q8_0")
    narrower = serving.kv_type not in ("q8_0", "q4_0") and odd_heads(model, "q8_0") is None
    alone = narrower and _fits(spec, device, narrow)
    if alone:
        out.append("a KV cache in q8_0 (--kv-type q8_0)")
    shorter = largest_context(spec, device, serving)
    if shorter:
        out.append(f"a context of {shorter:,} tokens (--context {shorter})")
    smaller = [] if model.types else [q for q in _SMALLER if model.quantized(q).weight_bytes < spec.weight_bytes]
    if model.architecture == "gpt-oss" and not model.types and quantization != "MXFP4_MOE":
        smaller.insert(0, "MXFP4_MOE")  # what its weights were made in
    ways = [(q, serving) for q in smaller] + [(q, narrow) for q in smaller if narrower and not alone]
    found = next(((q, asked) for q, asked in ways if _fits(model.quantized(q), device, asked)), None)
    if found:
        out.append(_words(*found, serving))
    if not out and not _offloads(spec, device, host, serving):
        found = next(((q, asked) for q, asked in ways if _offloads(model.quantized(q), device, host, asked)), None)
        if found:
            out.append(f"{_words(*found, serving)} and offload")
    held = device_memory(spec, device, serving)
    missing = format_size(held.needed - device.usable_bytes)
    out.append(f"{missing} more memory, {format_size(held.needed)} in all free for the model")
    return out


def _words(quantization: str, asked: Serving, serving: Serving) -> str:
    """A smaller quantization, and the cache's where it changes too."""
    if asked == serving:
        return f"{quantization} weights (--quantization {quantization})"
    return f"{quantization} weights and a KV cache in q8_0 (--quantization {quantization} --kv-type q8_0)"
