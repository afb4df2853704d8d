"""Predicted speed: tokens per second as a range, from what a token reads and computes. Seconds, bytes, operations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from potstill.components.hardware.devices import Device
from potstill.components.hardware.memory import MICRO_BATCH, kv_bytes
from potstill.components.models.spec import ModelSpec, block_of

__all__ = [
    "Placement",
    "Speed",
    "bytes_by_type",
    "calibrated_seconds",
    "operations_by_type",
    "routed_experts",
    "speed",
]

_CALIBRATED = (0.8, 1.2)
"""Range around the prediction for a calibrated machine."""
_LAYER = {
    "x86": (25e-6, 5e-6), "arm": (25e-6, 5e-6), "metal": (195e-6, 77e-6), "cuda": (40e-6, 8e-6), "hip": (40e-6, 8e-6),
    "vulkan": (40e-6, 8e-6),
}  # fmt: skip
"""Seconds per token and layer, slow and fast, that are not reading bytes: starting kernels, waiting for threads. Read
from models of 0.1 to 0.6 billion parameters on CUDA (34 to 67 microseconds where all of the bandwidth is reached), and
for Metal where the line through the Q4_0, Q8_0 and F16 files of one model meets zero bytes (66 to 240)."""
_TOKEN = {"cpu": (200e-6, 50e-6), "unified": (300e-6, 100e-6), "gpu": (300e-6, 100e-6)}
"""Seconds per token for choosing and sending it, slow and fast. On a CPU, three models of 1 to 2 million parameters
took 100 to 200 microseconds."""
_TILE = {"cuda": 64, "hip": 64, "vulkan": 64, "metal": 32}
"""Tokens that a GPU's matrix kernel multiplies at once: those of each expert are rounded up to it, by half of it on
average. A CPU's kernels take few at a time."""


@dataclass(frozen=True)
class Placement:
    """The part of a model that is on a device.

    share     share of the KV cache, 0 to 1
    tensors   names of the tensors; None for all that are run
    """

    device: Device
    share: float
    tensors: frozenset[str] | None = None

    def tensors_of(self, spec: ModelSpec) -> Iterable[str]:
        """Names of the tensors that are on the device."""
        return spec.run_tensors if self.tensors is None else self.tensors


@dataclass(frozen=True)
class Speed:
    """Tokens per second, low and high.

    bound, prefill_bound   what limits decoding and reading a prompt: bandwidth, compute or offload
    load_seconds           reading the file from the drive
    """

    decode: tuple[float, float]
    prefill: tuple[float, float]
    bound: str
    prefill_bound: str
    load_seconds: float

    def first_token(self, prompt: float) -> tuple[float, float]:
        """Seconds to the first token after a prompt of so many tokens, low and high."""
        return prompt / self.prefill[1], prompt / self.prefill[0]


def bytes_by_type(spec: ModelSpec, names: Iterable[str] | None = None) -> dict[str, float]:
    """Bytes of weights that one decoded token reads, by tensor type: no unused experts, one row of what is looked up.

    Args:
        spec: the model, with types.
        names: count only these tensors.
    """
    sizes, out = spec.tensor_bytes(), defaultdict[str, float](float)
    for name in spec.run_tensors if names is None else names:
        out[spec.types[name]] += sizes[name] * spec.share_used(name)
    return dict(out)


def operations_by_type(
    spec: ModelSpec, names: Iterable[str] | None = None, *, prompt: bool, tile: int = 0
) -> dict[str, float]:
    """Multiplications and additions per token, by tensor type, without those of attention over the cache.

    Args:
        spec: the model, with types.
        names: count only these tensors.
        prompt: count a token of a prompt. llama.cpp computes the logits and the last block's FFN only for the last one.
        tile: tokens that are multiplied at once, to which those of each expert are rounded up; 0 for a CPU.
    """
    padded = 1 + tile * spec.experts / (2 * MICRO_BATCH * spec.experts_used) if prompt and spec.experts_used else 1.0
    left_out = ("token_embd." if spec.tied else "output.", f"blk.{spec.layers - 1}.ffn_") if prompt else ()
    out = defaultdict[str, float](float)
    for name in spec.run_tensors if names is None else names:
        dims = spec.tensors[name]
        if len(dims) > 1 and not name.startswith(left_out):
            count = 2 * math.prod(dims) * spec.share_used(name)
            out[spec.types[name]] += count * padded if "_exps." in name else count
    return dict(out)


def routed_experts(spec: ModelSpec, names: Iterable[str] | None = None) -> int:
    """Experts that one token is routed to, over all layers.

    Args:
        spec: the model.
        names: count only these tensors.
    """
    of = spec.run_tensors if names is None else names
    return spec.experts_used * sum(name.endswith("ffn_down_exps.weight") for name in of)


def _attention_operations(spec: ModelSpec, context: int) -> float:
    """Operations of attention per token of a prompt that fills the context: queries x keys, and weights x values.

    On average a token has half of the context as keys; with a window of w tokens it has w, except for the first ones.
    """
    total = 0.0
    for layer in spec.attention:
        seen = min(context, layer.window or context)
        total += 4 * layer.queries * (seen - seen**2 / (2 * context))
    return total


def _pass_bytes(spec: ModelSpec, names: Iterable[str]) -> float:
    """Bytes that a micro-batch of a prompt reads: every expert, because its tokens are routed to different ones."""
    sizes = spec.tensor_bytes()
    return sum(sizes[name] for name in names if not spec.looked_up(name))


def speed(spec: ModelSpec, placements: list[Placement], context: int, kv_type: str) -> Speed:
    """Speed of one conversation.

    The low end is for a full context and the device's low efficiency, the high end for an empty context and its high
    efficiency.

    Args:
        spec: the model, with types.
        placements: which device has which part; a token goes through one after the other.
        context: tokens of the conversation.
        kv_type: type of the KV cache.
    """
    cache, attention = kv_bytes(spec, context, kv_type), _attention_operations(spec, context)
    works = [_Work.of(spec, placement) for placement in placements]
    ends = []
    for end in (0, 1):
        full = [(1 - end) * placement.share for placement in placements]
        timed = [work.seconds(spec, s * cache, s * attention, end) for work, s in zip(works, full, strict=True)]
        decode, prefill = (sum(seconds) for seconds in zip(*(found[:2] for found in timed), strict=True))
        ends.append((1 / decode, 1 / prefill, *timed[0][2:]))
    (slow, slow_prompt, bound, prompt_bound), (fast, fast_prompt, *_) = ends
    return Speed(
        decode=(slow, fast),
        prefill=(slow_prompt, fast_prompt),
        bound="offload" if len(placements) > 1 else bound,
        prefill_bound="offload" if len(placements) > 1 else prompt_bound,
        load_seconds=spec.data_bytes / min(placement.device.storage for placement in placements),
    )


@dataclass(frozen=True)
class _Work:
    """What one token costs on one device.

    read         bytes by type that a decoded token reads
    decode       operations of a decoded token
    prompt       operations by type of a prompt's token
    pass_bytes   bytes that a micro-batch of a prompt reads
    """

    placement: Placement
    read: Mapping[str, float]
    decode: float
    prompt: Mapping[str, float]
    pass_bytes: float
    layers: int
    experts: int

    @classmethod
    def of(cls, spec: ModelSpec, placement: Placement) -> _Work:
        names = list(placement.tensors_of(spec))
        return cls(
            placement,
            bytes_by_type(spec, names),
            sum(operations_by_type(spec, names, prompt=False).values()),
            operations_by_type(spec, names, prompt=True, tile=_TILE.get(placement.device.backend, 0)),
            _pass_bytes(spec, names),
            len({block_of(name) for name in names} - {-1}),
            routed_experts(spec, names),
        )

    def seconds(self, spec: ModelSpec, cache: float, attention: float, end: int) -> tuple[float, float, str, str]:
        """Seconds of a decoded token and of a prompt's token, and what bounds each.

        Args:
            spec: the whole model.
            cache: bytes of the cache that are read.
            attention: operations over the cache.
            end: 0 for the slow end, 1 for the fast one.
        """
        device, weights = self.placement.device, sum(self.read.values())
        bandwidth = device.bandwidth * device.efficiency[end]
        rate = device.compute * device.compute_efficiency[end]
        if device.rates:
            whole = {kind: size * (1 + cache / weights) for kind, size in self.read.items()}
            known = calibrated_seconds(device.rates, self.layers, spec.vocab, whole, self.experts)
            decode, bound = known * _CALIBRATED[1 - end], "bandwidth"
        else:
            by_bandwidth, by_compute = (weights + cache) / bandwidth, self.decode / rate
            bound = "compute" if by_bandwidth < by_compute else "bandwidth"
            decode = max(by_bandwidth, by_compute)
            decode += self.layers * _LAYER[device.backend][end] + self.placement.share * _TOKEN[device.kind][end]
        if device.prompt_rates:
            slowest = min(device.prompt_rates.values())
            prompt = sum(count / device.prompt_rates.get(kind, slowest) for kind, count in self.prompt.items())
            prompt = (prompt + attention / max(device.prompt_rates.values())) * _CALIBRATED[1 - end]
        else:
            prompt = (sum(self.prompt.values()) + attention) / rate
        # the weights are read once per micro-batch
        by_pass = self.pass_bytes / bandwidth / MICRO_BATCH
        return decode, max(prompt, by_pass), bound, "compute" if by_pass < prompt else "bandwidth"


def calibrated_seconds(
    rates: Mapping[str, float], layers: int, vocab: int, read: Mapping[str, float], experts: int = 0
) -> float:
    """Seconds per token by a machine's measured rates; a type that was not measured takes the slowest known rate.

    Args:
        rates: seconds per layer (`layer`), per vocabulary entry (`vocabulary`: choosing a token), per expert that a
            token is routed to (`expert`), and per byte of each tensor type.
        layers: number of layers.
        vocab: size of the vocabulary.
        read: bytes that a token reads, by type.
        experts: see `routed_experts`.
    """
    fixed = {"layer": layers, "vocabulary": vocab, "expert": experts}
    slowest = max(rate for key, rate in rates.items() if key not in fixed)
    by_type = sum(size * rates.get(kind, slowest) for kind, size in read.items())
    return by_type + sum(count * rates.get(key, 0.0) for key, count in fixed.items())
