"""Whether a model runs on a device: memory against what there is, the split over a card and its host, a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.gguf_types import QUANTIZATIONS
from potstill.plan.anatomy import Anatomy
from potstill.plan.devices import Device
from potstill.plan.memory import Memory, kv_bytes, layer_bytes, memory
from potstill.plan.speed import Part, Speed, speed

__all__ = ["FITS", "NO_FIT", "OFFLOAD", "Fit", "Wish", "fit", "largest_context"]

FITS, OFFLOAD, NO_FIT = "fits", "fits with offload", "does not fit"
_LONGEST = 1 << 20
_STEP = 256
_SMALLER = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class Wish:
    """What is asked of a device: tokens of one conversation, type of the KV cache, conversations at once."""

    context: int = 4096
    kv_type: str = "f16"
    parallel: int = 1


@dataclass(frozen=True)
class Fit:
    """The answer for one model, quantization and device.

    layers_on_device    blocks on the card; all of them where it fits whole
    host_bytes          what the host's memory must hold beside the card
    speed               None where it does not fit
    advice              sentences: what would make it fit, or fit whole
    """

    anatomy: Anatomy
    device: Device
    host: Device | None
    wish: Wish
    memory: Memory
    verdict: str
    layers_on_device: int
    host_bytes: int
    max_context: int
    speed: Speed | None
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The eight keys of every plan, then what explains them."""
        decode = list(self.speed.decode) if self.speed else [0.0, 0.0]
        return {
            "weight_bytes": self.anatomy.weight_bytes,
            "bits_per_weight": round(self.anatomy.bits_per_weight, 4),
            "kv_bytes": self.memory.kv,
            "compute_bytes": self.memory.compute,
            "total_bytes": self.memory.total,
            "decode_tokens_per_s": [round(rate, 3) for rate in decode],
            "max_context": self.max_context,
            "verdict": self.verdict,
            "model": self.anatomy.name,
            "quantization": self.anatomy.quantization,
            "device": self.device.name,
            "context": self.wish.context,
            "kv_type": self.wish.kv_type,
            "parallel": self.wish.parallel,
            "parameters": self.anatomy.parameters,
            "file_bytes": self.memory.weights,
            "copied_bytes": self.memory.copies,
            "overhead_bytes": self.memory.overhead,
            "needed_bytes": self.memory.needed,
            "usable_bytes": self.device.usable_bytes,
            "prefill_tokens_per_s": [round(rate, 3) for rate in self.speed.prefill] if self.speed else [0.0, 0.0],
            "bound": self.speed.bound if self.speed else None,
            "load_seconds": round(self.speed.load_seconds, 3) if self.speed else None,
            "layers": self.anatomy.layers,
            "layers_on_device": self.layers_on_device,
            "host": self.host.name if self.host else None,
            "host_bytes": self.host_bytes,
            "advice": list(self.advice),
        }


def _memory(anatomy: Anatomy, device: Device, wish: Wish) -> Memory:
    return memory(anatomy, wish.context, kv_type=wish.kv_type, parallel=wish.parallel, backend=device.backend)


def _split(anatomy: Anatomy, device: Device, host: Device, wish: Wish) -> tuple[int, int] | None:
    """Most blocks that go on the card, and the host's bytes; None where no block does, or the host has no room."""
    whole = _memory(anatomy, device, wish)
    kv = [0] * anatomy.layers
    for i, layer in enumerate(anatomy.attention):
        one = Anatomy("", "", 0, 0, (layer,), {})
        kv[i] = kv_bytes(one, wish.context, wish.kv_type, wish.parallel)
    blocks = [size + cache for size, cache in zip(layer_bytes(anatomy), kv, strict=True)]
    room = device.usable_bytes - whole.compute - whole.overhead
    count = 0
    # llama.cpp moves the last blocks first
    while count < len(blocks) and room >= blocks[-1 - count]:
        room -= blocks[-1 - count]
        count += 1
    rest = whole.weights + whole.kv - sum(blocks[len(blocks) - count :]) + whole.compute + whole.overhead
    return (count, rest) if count and rest <= host.usable_bytes else None


def _verdict(anatomy: Anatomy, device: Device, host: Device | None, wish: Wish) -> tuple[str, int, int]:
    """Verdict, blocks on the device, bytes of the host."""
    if _memory(anatomy, device, wish).needed <= device.usable_bytes:
        return FITS, anatomy.layers, 0
    split = _split(anatomy, device, host, wish) if host and device.kind == "gpu" else None
    return (OFFLOAD, *split) if split else (NO_FIT, 0, 0)


def largest_context(anatomy: Anatomy, device: Device, host: Device | None, wish: Wish) -> int:
    """Most tokens of a conversation, a multiple of 256 that the model was made for, with which it fits on the device
    whole; where it never does, with offload; 0 where neither."""
    most = anatomy.context or _LONGEST
    for accepted in ((FITS,), (FITS, OFFLOAD)):
        low, high = 0, max(1, most // _STEP)
        while low < high:
            middle = (low + high + 1) // 2
            tried = Wish(middle * _STEP, wish.kv_type, wish.parallel)
            if _verdict(anatomy, device, host, tried)[0] in accepted:
                low = middle
            else:
                high = middle - 1
        if low:
            return min(low * _STEP, most)
    return 0


def fit(model: Anatomy, quantization: str, device: Device, wish: Wish, host: Device | None = None) -> Fit:
    """Everything about one model in one quantization on one device.

    Args:
        model: a file's own types are kept, whatever the quantization.
        host: whose memory takes what a card does not; only for devices of kind gpu.

    Raises:
        KeyError: the quantization or the KV type is not known.
    """
    anatomy = model.quantized(quantization)
    held = _memory(anatomy, device, wish)
    verdict, count, rest = _verdict(anatomy, device, host, wish)
    rate = None
    if verdict == FITS:
        rate = speed(anatomy, [Part(device, 1.0)], wish.context, wish.kv_type)
    elif verdict == OFFLOAD and host:
        sizes = layer_bytes(anatomy)
        share = sum(sizes[len(sizes) - count :]) / sum(sizes)
        # what is outside the blocks is on the host: first
        rate = speed(anatomy, [Part(host, 1 - share), Part(device, share)], wish.context, wish.kv_type)
    longest = largest_context(anatomy, device, host, wish)
    return Fit(
        anatomy=anatomy,
        device=device,
        host=host if verdict == OFFLOAD else None,
        wish=wish,
        memory=held,
        verdict=verdict,
        layers_on_device=count,
        host_bytes=rest,
        max_context=longest,
        speed=rate,
        advice=() if verdict == FITS else tuple(_advice(model, quantization, device, wish, held)),
    )


def _advice(model: Anatomy, quantization: str, device: Device, wish: Wish, held: Memory) -> list[str]:
    """What would make it fit on the device whole, each change on its own, the mildest first."""

    def fits(candidate: Anatomy, asked: Wish) -> bool:
        return _memory(candidate, device, asked).needed <= device.usable_bytes

    out, anatomy = [], model.quantized(quantization)
    if wish.kv_type not in ("q8_0", "q4_0") and fits(anatomy, Wish(wish.context, "q8_0", wish.parallel)):
        out.append("a KV cache in q8_0 (--kv-type q8_0)")
    shorter = largest_context(anatomy, device, None, wish)
    if shorter:
        out.append(f"a context of {shorter:,} tokens (--context {shorter})")
    if not model.types and quantization in QUANTIZATIONS:
        size = anatomy.weight_bytes
        tried = (q for q in _SMALLER if model.quantized(q).weight_bytes < size)
        found = next((q for q in tried if fits(model.quantized(q), wish)), None)
        if found:
            out.append(f"{found} weights (--quantization {found})")
    missing = held.needed - device.usable_bytes
    out.append(f"{missing / 1e9:.2f} GB more memory, {held.needed / 1e9:.2f} GB in all free for the model")
    return out
