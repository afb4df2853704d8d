"""How fast: tokens a second as a range, from what a token reads and computes. Seconds, bytes, operations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from potstill.plan.anatomy import Anatomy
from potstill.plan.devices import Device
from potstill.plan.memory import kv_bytes

__all__ = ["Part", "Speed", "bytes_by_type", "calibrated_seconds", "read_bytes", "speed"]

_CALIBRATED = (0.85, 1.15)
"""Around a calibrated machine's prediction."""


def read_bytes(anatomy: Anatomy) -> float:
    """Weights that one decoded token reads: all, less the unused experts and an untied token embedding."""
    return sum(size * anatomy.share_used(name) for name, size in anatomy.tensor_bytes().items())


def bytes_by_type(anatomy: Anatomy) -> dict[str, float]:
    """The same by tensor type."""
    out: dict[str, float] = defaultdict(float)
    for name, size in anatomy.tensor_bytes().items():
        out[anatomy.types[name]] += size * anatomy.share_used(name)
    return dict(out)


def _operations(anatomy: Anatomy) -> float:
    """Multiplications and additions of one token, without attention."""
    return 2 * sum(
        math.prod(dims) * anatomy.share_used(name) for name, dims in anatomy.tensors.items() if len(dims) > 1
    )


@dataclass(frozen=True)
class Part:
    """A share of the model's blocks (0 to 1) on a device."""

    device: Device
    share: float


@dataclass(frozen=True)
class Speed:
    """Tokens a second, low and high; `bound` is what limits decoding: bandwidth, compute or offload."""

    decode: tuple[float, float]
    prefill: tuple[float, float]
    bound: str
    load_seconds: float

    def first_token(self, prompt: float) -> tuple[float, float]:
        """Seconds to the first token after a prompt of so many, low and high."""
        return prompt / self.prefill[1], prompt / self.prefill[0]


def speed(anatomy: Anatomy, parts: list[Part], context: int, kv_type: str) -> Speed:
    """Speed of one conversation. The low end has a full context and the low efficiency of the device, the high end
    an empty one and the high efficiency.

    Args:
        parts: where the blocks are; the output matrix is where the first part is.
    """
    weights, operations = read_bytes(anatomy), _operations(anatomy)
    blocks = sum(
        size * anatomy.share_used(name) for name, size in anatomy.tensor_bytes().items() if name.startswith("blk.")
    )
    cache = kv_bytes(anatomy, context, kv_type)
    decode, prefill, bounds = [], [], []
    for end in (0, 1):
        seconds = prompt = 0.0
        for place, part in enumerate(parts):
            device = part.device
            own = blocks * part.share + (weights - blocks if place == 0 else 0)
            read = own + (cache * part.share if end == 0 else 0)
            by_bandwidth = read / (device.bandwidth * device.efficiency[end])
            rate = device.compute * device.compute_efficiency[end]
            by_compute = operations * own / weights / rate
            if device.rates:
                by_bandwidth = _calibrated(anatomy, device, read / weights) * _CALIBRATED[1 - end]
            seconds += max(by_bandwidth, by_compute)
            bounds.append("bandwidth" if by_bandwidth >= by_compute else "compute")
            # a prompt's weights are read once for a micro-batch of 512
            prompt += max(by_compute, by_bandwidth / 512)
        decode.append(1 / seconds)
        prefill.append(1 / prompt)
    storage = min(part.device.storage for part in parts)
    return Speed(
        decode=(decode[0], decode[1]),
        prefill=(prefill[0], prefill[1]),
        bound="offload" if len(parts) > 1 else bounds[0],
        load_seconds=anatomy.data_bytes / storage,
    )


def calibrated_seconds(rates: Mapping[str, float], layers: int, vocab: int, read: Mapping[str, float]) -> float:
    """Seconds of a token by a machine's own rates; a type that was not measured takes the slowest known.

    Args:
        rates: seconds of a layer (`layer`), of a vocabulary entry (`vocabulary`: choosing among them), and of a byte of
            each tensor type.
        layers: the model's.
        vocab: its vocabulary's size.
        read: bytes that a token reads by type.
    """
    slowest = max(rate for key, rate in rates.items() if key not in ("layer", "vocabulary"))
    by_type = sum(size * rates.get(kind, slowest) for kind, size in read.items())
    return by_type + layers * rates.get("layer", 0.0) + vocab * rates.get("vocabulary", 0.0)


def _calibrated(anatomy: Anatomy, device: Device, share: float) -> float:
    """The same of a model; `share` of its bytes are read."""
    read = {kind: share * size for kind, size in bytes_by_type(anatomy).items()}
    return calibrated_seconds(device.rates, anatomy.layers, anatomy.vocab, read)
